//! The paying client: a tower layer that answers challenges with payments,
//! within a budget.

mod budget;
mod store;
mod wallet;

pub use budget::{Budget, Limit};
#[cfg(feature = "sqlite")]
#[cfg_attr(docsrs, doc(cfg(feature = "sqlite")))]
pub use store::SqliteStore;
pub use store::{Begun, FileStore, MemoryStore, Purchase, PurchaseState, Spent, StoreError, TokenStore};
pub use wallet::{PayError, PayErrorKind, Payment, PaymentRequest, PaymentStatus, Wallet};
