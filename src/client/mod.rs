//! The paying client: an HTTP client, or a tower layer around one of yours,
//! that answers challenges with payments, within a budget.
//!
//! ```
//! # #[cfg(all(feature = "axum", feature = "dev"))]
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use l402::client::{Budget, Client, Payer};
//! # use axum::{Router, routing::get};
//! # use l402::{Access, DAY, DevBackend, Gate, Issuer, L402Layer, Offer, Price};
//! # let wallet = DevBackend::new();
//! # let offer = Offer::new(Price::sat(21), Access::uses(100).within(DAY));
//! # let gate = Gate::new(&Issuer::dev(&wallet), "forecast", offer)?;
//! # let app = Router::new().route("/forecast", get(async || "sunny").route_layer(L402Layer::new(gate)));
//! # let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
//! # let url = format!("http://{}/forecast", listener.local_addr()?);
//! # tokio::spawn(async move { axum::serve(listener, app).await });
//!
//! let payer = Payer::new(wallet).with_budget(Budget::default().with_request_sat(50).with_day_sat(1_000));
//! let client = Client::new(payer);
//!
//! let paid = client.pay(&url, 30_000).await?; // 30 sat at most, with the fee
//! assert_eq!(&**paid.response.body(), b"sunny");
//! assert_eq!(paid.receipt.expect("it was not free").amount_msat, 21_000);
//!
//! let again = client.get(&url).await?; // with the token that is held
//! assert_eq!(again.body(), "sunny");
//! assert_eq!(client.payer().spent().await?.total_msat, 21_000);
//! # Ok(())
//! # }
//! # #[cfg(not(all(feature = "axum", feature = "dev")))]
//! # fn main() {}
//! ```
//!
//! [`Client`] is an HTTP client of its own; [`L402ClientLayer`] pays for the
//! requests of hyper-util's, reqwest's or tonic's. A [`Payer`] is what both
//! share: a [`Wallet`], a [`Budget`], a [`TokenStore`] and what it may do.
//!
//! # The life of a request
//!
//! | step | what | file |
//! |---|---|---|
//! | known token | one that opened the path before goes with the request, and nobody is asked | `service.rs`, `known.rs` |
//! | challenge | every L402 and LSAT challenge of the answer is read, within caps | `challenges.rs`, `token.rs` |
//! | origin | it may be paid, and nobody else buys there meanwhile | `check.rs`, `known.rs` |
//! | resume | what was begun there before is looked up in the wallet, and settled, removed or waited for | `resume.rs` |
//! | held token | one of the scope that is asked for is used | `purchase.rs` |
//! | check | invoice, amount, network, expiry, hash, limit; then the confirmation | `check.rs` |
//! | begin | the purchase is written, and its amount and highest fee reserved, in one step with the check of the budget | `store/` |
//! | pay | the wallet pays, and the preimage is compared with the payment hash | `wallet/` |
//! | settle | the token is held, with what it cost | `store/` |
//! | again | the request is sent once more, with the same method, headers and body | `service.rs`, `body.rs` |
//!
//! From the challenge to the held token it is a task of its own: a caller who
//! leaves loses no payment that was begun. Whatever happens between, at most one
//! payment is made for an invoice, and the next request to the origin looks it
//! up before it pays for anything else.
//!
//! A token is found by its origin and its scope: the caveats of its macaroon but
//! those of time; path and query, where the token does not say what it opens. A
//! token that is refused where its own scope is asked for is discarded. One that
//! is good for a single request belongs to the request that bought it.
//!
//! # What is not paid
//!
//! | | kind |
//! |---|---|
//! | no challenge that can be read | [`NoChallenge`](ErrorKind::NoChallenge) |
//! | an invoice that is not BOLT 11, without amount, of another network, for another token, expired or with less than 10 seconds left, or used before, by whoever pays with the wallet | [`Invoice`](ErrorKind::Invoice), [`NoAmount`](ErrorKind::NoAmount), [`Network`](ErrorKind::Network), [`PaymentHash`](ErrorKind::PaymentHash), [`Expired`](ErrorKind::Expired), [`InvoiceUsed`](ErrorKind::InvoiceUsed) |
//! | a price beyond what is allowed | [`OverBudget`](ErrorKind::OverBudget), with the [`Limit`] |
//! | over plain http, to another machine | [`PlainHttp`](ErrorKind::PlainHttp) |
//! | an origin that is not on the list, or that nobody names | [`OriginNotAllowed`](ErrorKind::OriginNotAllowed), [`Origin`](ErrorKind::Origin) |
//! | a redirect to another origin | [`Redirect`](ErrorKind::Redirect) |
//! | what is not confirmed, and anything in a dry run | [`NotConfirmed`](ErrorKind::NotConfirmed), [`DryRun`](ErrorKind::DryRun) |
//! | a body that cannot be sent again | [`Body`](ErrorKind::Body) |
//! | anything while an earlier payment to the origin is on its way | [`InFlight`](ErrorKind::InFlight), [`Wallet`](ErrorKind::Wallet) |
//! | the same request twice: a server that asks again after it was paid, or redirects to where it asks again | [`PaidAgain`](ErrorKind::PaidAgain), [`OverBudget`](ErrorKind::OverBudget) |
//!
//! # Fees
//!
//! Up to 5 sat and 1 % of the amount are reserved for the fee, and told to the
//! wallet as its limit; less where the budget leaves less. A wallet that cannot
//! limit its fees needs that room whole, and may take more.
//!
//! # What it trusts
//!
//! The wallet, with its money: what it says of payments is checked where that is
//! possible. Servers, in nothing: what they write decides no more than which of
//! their own tokens they are sent. Several sellers on one origin are one seller.

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
mod resume;
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
