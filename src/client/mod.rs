//! The paying client: a tower layer that answers challenges with payments,
//! within a budget.

mod body;
mod budget;
mod challenges;
mod check;
#[expect(clippy::module_inception, reason = "the client of the module")]
mod client;
mod error;
mod known;
mod layer;
mod origin;
mod payer;
mod purchase;
mod quote;
mod receipt;
mod redirect;
mod replay;
mod restrict;
mod service;
mod store;
mod token;
mod transport;
mod wallet;

pub use body::Body;
pub use budget::{Budget, Limit};
pub use client::{Client, Paid, Service};
pub use error::{Error, ErrorKind};
pub use layer::L402ClientLayer;
pub use payer::Payer;
pub use quote::Quote;
pub use receipt::Receipt;
pub use restrict::{RestrictError, Restriction};
pub use service::L402Client;
#[cfg(feature = "sqlite")]
#[cfg_attr(docsrs, doc(cfg(feature = "sqlite")))]
pub use store::SqliteStore;
pub use store::{Begun, FileStore, MemoryStore, Purchase, PurchaseState, Spent, StoreError, TokenStore};
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
