//! The contracts of the plug-in traits, as suites that any implementation
//! runs: ours and yours.
//!
//! A suite panics with a sentence that says which rule was broken.

pub mod backend;
mod backend_faults;
mod fault_server;
pub mod ledger;
#[cfg(feature = "client")]
#[cfg_attr(docsrs, doc(cfg(feature = "client")))]
pub mod token_store;
#[cfg(feature = "client")]
#[cfg_attr(docsrs, doc(cfg(feature = "client")))]
pub mod wallet;
#[cfg(feature = "client")]
mod wallet_faults;
