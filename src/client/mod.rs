//! The paying client: a tower layer that answers challenges with payments,
//! within a budget.

mod budget;
mod store;
mod wallet;

pub use budget::{Budget, Limit};
pub use store::{Begun, Purchase, PurchaseState, Spent, StoreError, TokenStore};
#[cfg(feature = "cln")]
#[cfg_attr(docsrs, doc(cfg(feature = "cln")))]
pub use wallet::ClnWallet;
#[cfg(feature = "lnbits")]
#[cfg_attr(docsrs, doc(cfg(feature = "lnbits")))]
pub use wallet::LnbitsWallet;
#[cfg(feature = "lnd")]
#[cfg_attr(docsrs, doc(cfg(feature = "lnd")))]
pub use wallet::LndWallet;
#[cfg(feature = "nwc")]
#[cfg_attr(docsrs, doc(cfg(feature = "nwc")))]
pub use wallet::NwcWallet;
#[cfg(feature = "phoenixd")]
#[cfg_attr(docsrs, doc(cfg(feature = "phoenixd")))]
pub use wallet::PhoenixdWallet;
pub use wallet::{PayError, PayErrorKind, Payment, PaymentRequest, PaymentStatus, Wallet};
