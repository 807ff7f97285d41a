#![cfg_attr(docsrs, feature(doc_cfg))]
//! Lets any [tower] service be paid per request over Lightning.
//!
//! A request without a token is answered `402 Payment Required`, with a
//! Lightning invoice and a macaroon. Paying the invoice reveals its preimage,
//! and macaroon and preimage together are the credential: the server verifies
//! both by arithmetic alone, without a database, a node or a third party.
//!
//! ```
//! # #[cfg(all(feature = "dev", feature = "axum"))] {
//! use axum::{Router, routing::get};
//! use l402::{Access, DAY, DevBackend, Gate, Grant, Issuer, L402Layer, Offer, Price};
//!
//! async fn forecast(grant: Grant) -> String {
//!     format!("sunny; {} requests left", grant.remaining().unwrap_or_default())
//! }
//!
//! let wallet = DevBackend::new(); // wallet.pay(bolt11) gives the preimage
//! let issuer = Issuer::dev(&wallet);
//! let gate = Gate::new(&issuer, "forecast", Offer::new(Price::sat(21), Access::uses(100).within(DAY)))?;
//! let app: Router = Router::new().route("/forecast", get(forecast).route_layer(L402Layer::new(gate)));
//! # }
//! # Ok::<(), l402::Error>(())
//! ```
//!
//! # The life of a request
//!
//! | step | what | answer where it fails |
//! |---|---|---|
//! | credential | one token and preimage, within the caps and by the grammar | none: 402; broken: 401 |
//! | macaroon | a format and key that are known; the signature | 402; 401 |
//! | preimage | its SHA-256 is the token's payment hash | 401 |
//! | caveats | all known and true: service, expiry, tier, capability, offer, price, your own | 402 |
//! | price | where the request decides it: not more than was paid | 402; 4xx, 500, 503 |
//! | payment | where a preimage proves none: the backend says that it was paid | 402; 503 |
//! | rate | of a pass that is sold with one | 429 |
//! | ledger | where uses are counted: one is reserved | 402; 503 |
//! | inner service | called with a [`Grant`] in its extensions | |
//! | settle | the use is charged, or given back after a server error | |
//!
//! Every 402 carries a fresh challenge; no other answer carries an invoice. Who
//! asks for too many is answered 429: see
//! [`IssuerBuilder::with_client_challenges`] for the limits, and for what the
//! server has to tell of its clients.
//! [`Refusal`] has the whole table.
//!
//! Streams, uploads, other layers, odd paths, shutdown: [`edges`] says what happens there.
//!
//! # Features
//!
//! | feature | adds |
//! |---|---|
//! | `axum` | extractors: [`Paid`] gates one handler without a layer, [`Grant`] tells what a gate granted; the client is known by `ConnectInfo` |
//! | `cli` | the command `l402`, which gets a URL and pays for it: nothing in the library |
//! | `client` | the paying client, [`client`]: an HTTP client or a layer around one, wallets, budgets, token stores |
//! | `cln` | `ClnBackend`: a Core Lightning node, over CLNRest |
//! | `dev` | [`DevBackend`] and [`Issuer::dev`]: regtest invoices made in process |
//! | `gateway` | `checkout::SignedWebhook`: a payment method on another host, joined by a signed webhook |
//! | `lnbits` | `LnbitsBackend`: a wallet of an LNbits server |
//! | `lnd` | `LndBackend`: an LND node, over its REST API |
//! | `lnurl` | `LnurlBackend`: a Lightning address or LNURL-pay link, whoever runs it |
//! | `phoenixd` | `PhoenixdBackend`: a phoenixd node |
//! | `metrics` | counters and histograms for the recorder of your choice: the table is in `l402::metrics` |
//! | `nwc` | `NwcBackend`: any wallet with Nostr Wallet Connect (NIP-47), over a relay |
//! | `offers` | `checkout`: offers in the body of a 402, payment requests, webhooks; any payment method beside Lightning |
//! | `page` | `page`: a page for people in place of the JSON of a 402, with a QR code of the invoice, that opens what was paid for |
//! | `postgres` | `PostgresLedger`: several servers share one count in PostgreSQL |
//! | `redis` | `RedisLedger`: several servers share one count in Redis |
//! | `sqlite` | [`SqliteLedger`]: uses counted in a file, which survive the process |
//! | `stripe` | `checkout::StripeCheckout`: cards, and what else Stripe takes, for the offers of a 402 |
//! | `test-util` | [`Grant::test`], [`Gate::test_credential`] and [`FixedClock`]: test a handler without a payment; [`conformance`]: test a backend, ledger or wallet of your own |
//! | `tracing` | a log of what gates do: the table is in [`event`] |
//! | `tonic` | `tonic::server::NamedService` for [`L402`]; [gRPC](L402Layer#grpc) works without it |
//!
//! None is on by default, and none changes what the others do.
//!
//! # What it needs
//!
//! A tokio runtime with time enabled. Admitting a pass needs no runtime at all.
//!
//! [tower]: https://docs.rs/tower
#![cfg_attr(
    not(all(feature = "client", feature = "dev", feature = "sqlite", feature = "test-util")),
    allow(rustdoc::broken_intra_doc_links)
)]

mod account;
mod accounts;
mod admission;
mod answer;
mod backend;
mod bolt11;
mod caveat;
mod challenge;
#[cfg(feature = "offers")]
#[cfg_attr(docsrs, doc(cfg(feature = "offers")))]
pub mod checkout;
mod claim;
#[cfg(feature = "client")]
#[cfg_attr(docsrs, doc(cfg(feature = "client")))]
pub mod client;
mod clock;
#[cfg(feature = "test-util")]
#[cfg_attr(docsrs, doc(cfg(feature = "test-util")))]
pub mod conformance;
mod credential;
mod deadline;
mod decision;
mod demand;
#[cfg(doc)]
pub mod edges {
    //! Behaviour at the edges.
    //!
    #![doc = include_str!("edges.md")]
}
mod entropy;
mod error;
pub mod event;
mod exchange;
#[cfg(feature = "axum")]
mod extract;
mod gate;
mod gate_builder;
mod grant;
#[cfg(feature = "tonic")]
mod grpc;
mod invoice;
mod issuer;
mod issuer_builder;
mod keys;
pub mod ledger;
mod limit;
#[cfg(feature = "tracing")]
mod log;
pub mod macaroon;
#[cfg(feature = "metrics")]
#[cfg_attr(docsrs, doc(cfg(feature = "metrics")))]
pub mod metrics;
mod name;
mod offer;
#[cfg(feature = "page")]
#[cfg_attr(docsrs, doc(cfg(feature = "page")))]
pub mod page;
#[cfg(feature = "axum")]
mod paid;
mod panics;
mod payment;
mod preimage;
mod price;
mod pricer;
mod recent;
mod refusal;
mod ruling;
mod sale;
pub mod service;
#[cfg(feature = "axum")]
mod settle;
#[cfg(feature = "sqlite")]
mod sqlite;
mod sync;
#[cfg(feature = "test-util")]
mod testing;
mod warn;
mod watched;
mod worth;

pub use admission::{Admission, ChargeOn};
pub use answer::Cause;
pub use backend::{
    BackendError, BackendErrorKind, Capabilities, Invoice, InvoiceRequest, InvoiceState, LookUpBy, Network,
    PaymentBackend, UnknownNetwork,
};
#[cfg(feature = "cln")]
#[cfg_attr(docsrs, doc(cfg(feature = "cln")))]
pub use backend::{ClnBackend, ClnConfig};
#[cfg(feature = "dev")]
#[cfg_attr(docsrs, doc(cfg(feature = "dev")))]
pub use backend::{DevBackend, DevPayError};
#[cfg(feature = "lnbits")]
#[cfg_attr(docsrs, doc(cfg(feature = "lnbits")))]
pub use backend::{LnbitsBackend, LnbitsConfig};
#[cfg(feature = "lnd")]
#[cfg_attr(docsrs, doc(cfg(feature = "lnd")))]
pub use backend::{LndBackend, LndConfig};
#[cfg(feature = "lnurl")]
#[cfg_attr(docsrs, doc(cfg(feature = "lnurl")))]
pub use backend::{LnurlBackend, LnurlConfig};
#[cfg(feature = "nwc")]
#[cfg_attr(docsrs, doc(cfg(feature = "nwc")))]
pub use backend::{NwcBackend, NwcConfig};
#[cfg(feature = "phoenixd")]
#[cfg_attr(docsrs, doc(cfg(feature = "phoenixd")))]
pub use backend::{PhoenixdBackend, PhoenixdConfig};
pub use caveat::{Caveat, CaveatRegistry, Check};
pub use challenge::{Challenge, ChallengeError};
#[cfg(feature = "test-util")]
#[cfg_attr(docsrs, doc(cfg(feature = "test-util")))]
pub use clock::FixedClock;
pub use clock::{Clock, DAY, HOUR, MINUTE, SystemClock};
pub use entropy::{Entropy, SystemEntropy};
pub use error::{Error, ErrorKind};
#[doc(inline)]
pub use event::Event;
pub use exchange::{ExchangeRate, RateSource};
#[cfg(feature = "axum")]
#[cfg_attr(docsrs, doc(cfg(feature = "axum")))]
pub use extract::MissingGate;
pub use gate::Gate;
pub use gate_builder::GateBuilder;
#[cfg(feature = "test-util")]
#[cfg_attr(docsrs, doc(cfg(feature = "test-util")))]
pub use grant::TestGrant;
pub use grant::{Basis, Grant};
pub use issuer::Issuer;
pub use issuer_builder::IssuerBuilder;
pub use keys::{KeyRing, RootKey};
#[cfg(feature = "postgres")]
#[cfg_attr(docsrs, doc(cfg(feature = "postgres")))]
pub use ledger::PostgresLedger;
#[cfg(feature = "redis")]
#[cfg_attr(docsrs, doc(cfg(feature = "redis")))]
pub use ledger::RedisLedger;
#[cfg(feature = "sqlite")]
#[cfg_attr(docsrs, doc(cfg(feature = "sqlite")))]
pub use ledger::SqliteLedger;
pub use ledger::{Ledger, MemoryLedger, Revocation};
pub use limit::{ClientId, ForwardedHeader, PeerAddr};
pub use name::service_name;
pub use offer::{Access, Offer};
#[cfg(feature = "page")]
#[cfg_attr(docsrs, doc(cfg(feature = "page")))]
#[doc(inline)]
pub use page::Page;
#[cfg(feature = "axum")]
#[cfg_attr(docsrs, doc(cfg(feature = "axum")))]
pub use paid::Paid;
pub use preimage::{HexError, PaymentHash, Preimage};
pub use price::{Amount, Currency, Price, PriceOutOfRange, Unit};
pub use pricer::{PriceError, Pricer};
pub use refusal::{Malformed, Refusal};
#[doc(inline)]
pub use service::{L402, L402Layer};

#[cfg(feature = "axum")]
#[cfg_attr(docsrs, doc(cfg(feature = "axum")))]
pub use settle::{Settle, SettleFuture, SettleLayer};

#[cfg(all(
    doctest,
    feature = "axum",
    feature = "client",
    feature = "dev",
    feature = "sqlite",
    feature = "test-util"
))]
#[doc = include_str!("../README.md")]
struct Readme;
