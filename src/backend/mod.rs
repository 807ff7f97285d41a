//! Where invoices come from: a Lightning node or wallet behind one trait.

// `config`, `connect`, `http`, `reach` and `tls` are beneath the backends, and beneath the methods of a
// checkout, each of which uses a part.
mod call;
mod capabilities;
#[cfg(feature = "cln")]
pub(crate) mod cln;
#[cfg(feature = "_tls")]
#[cfg_attr(
    not(all(feature = "cln", feature = "lnd", feature = "lnurl", feature = "phoenixd")),
    allow(dead_code)
)]
pub(crate) mod config;
#[cfg(feature = "_http")]
mod connect;
#[cfg(feature = "dev")]
pub(crate) mod dev;
mod error;
#[cfg(feature = "_http")]
#[cfg_attr(
    not(all(feature = "client", feature = "cln", feature = "lnd", feature = "lnurl", feature = "phoenixd")),
    allow(dead_code)
)]
pub(crate) mod http;
#[cfg(feature = "lnbits")]
pub(crate) mod lnbits;
#[cfg(feature = "lnd")]
pub(crate) mod lnd;
#[cfg(feature = "lnurl")]
mod lnurl;
#[cfg(feature = "nwc")]
pub(crate) mod nwc;
#[cfg(feature = "phoenixd")]
pub(crate) mod phoenixd;
#[cfg(feature = "_http")]
#[cfg_attr(
    not(all(feature = "cln", feature = "lnd", feature = "lnurl", feature = "phoenixd")),
    allow(dead_code)
)]
mod reach;
#[cfg(feature = "_tls")]
#[cfg_attr(
    not(all(feature = "cln", feature = "lnd", feature = "lnurl", feature = "phoenixd")),
    allow(dead_code)
)]
pub(crate) mod tls;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::macaroon::TokenId;
use crate::preimage::PaymentHash;

pub(crate) use call::call;
pub use capabilities::{Capabilities, LookUpBy};
#[cfg(feature = "cln")]
#[cfg_attr(docsrs, doc(cfg(feature = "cln")))]
pub use cln::{ClnBackend, ClnConfig};
#[cfg(feature = "client")]
pub(crate) use connect::{Connector, client as http_client};
#[cfg(feature = "dev")]
#[cfg_attr(docsrs, doc(cfg(feature = "dev")))]
pub use dev::{DevBackend, DevPayError};
pub use error::{BackendError, BackendErrorKind};
#[cfg(feature = "lnbits")]
#[cfg_attr(docsrs, doc(cfg(feature = "lnbits")))]
pub use lnbits::{LnbitsBackend, LnbitsConfig};
#[cfg(feature = "lnd")]
#[cfg_attr(docsrs, doc(cfg(feature = "lnd")))]
pub use lnd::{LndBackend, LndConfig};
#[cfg(feature = "lnurl")]
#[cfg_attr(docsrs, doc(cfg(feature = "lnurl")))]
pub use lnurl::{LnurlBackend, LnurlConfig};
#[cfg(feature = "nwc")]
#[cfg_attr(docsrs, doc(cfg(feature = "nwc")))]
pub use nwc::{NwcBackend, NwcConfig};
#[cfg(feature = "phoenixd")]
#[cfg_attr(docsrs, doc(cfg(feature = "phoenixd")))]
pub use phoenixd::{PhoenixdBackend, PhoenixdConfig};
#[cfg(feature = "client")]
pub(crate) use reach::Reach;
#[cfg(feature = "client")]
pub(crate) use tls::Trust;

/// The chain whose coins are paid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Network {
    /// Real money.
    Bitcoin,
    /// The public test networks 3 and 4, which BOLT 11 does not tell apart.
    Testnet,
    /// The public signed test network.
    Signet,
    /// A chain of one's own.
    Regtest,
}

impl Network {
    /// The name, as it goes into the keys of tokens.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bitcoin => "bitcoin",
            Self::Testnet => "testnet",
            Self::Signet => "signet",
            Self::Regtest => "regtest",
        }
    }
}

/// Reads the name that [`as_str`](Network::as_str) gives.
impl FromStr for Network {
    type Err = UnknownNetwork;

    fn from_str(name: &str) -> Result<Self, UnknownNetwork> {
        let all = [Self::Bitcoin, Self::Testnet, Self::Signet, Self::Regtest];
        all.into_iter().find(|network| network.as_str() == name).ok_or(UnknownNetwork)
    }
}

/// A text is not the name of a [`Network`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a network: write `bitcoin`, `testnet`, `signet` or `regtest`")]
pub struct UnknownNetwork;

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Makes invoices on a Lightning node or wallet.
///
/// # Contract
/// - An invoice is for exactly the amount asked, which is a multiple of the
///   [step](Capabilities::with_step_msat), on the network of `capabilities`,
///   with a payment hash and secret of its own: never the same twice.
/// - It expires when asked to, or later where the backend cannot set that and
///   says so ([`Capabilities::with_fixed_expiry`]).
/// - The preimage stays with the node: it is in no answer, error or log.
/// - Where `capabilities` say that it can be asked, `look_up` tells of every
///   invoice it made what became of it, for as long as a token may last.
/// - Every method may be called at once from many requests and may be dropped
///   at any await. The crate bounds the calls in flight and their time.
/// - An error says what happened by its kind; its text holds no secret.
///
/// The crate trusts none of this: it parses every invoice and refuses one that
/// is not as asked. `conformance::backend` (feature `test-util`) checks all of
/// it, against a backend of yours.
///
/// ```
/// use async_trait::async_trait;
/// use l402::{BackendError, Capabilities, Invoice, InvoiceRequest, Network, PaymentBackend};
/// # #[derive(Debug)] struct MyHttp;
/// # impl MyHttp { async fn post(&self, _: &str, _: u64) -> Result<String, std::io::Error> { unimplemented!() } }
///
/// #[derive(Debug)]
/// struct MyNode {
///     http: MyHttp,
/// }
///
/// #[async_trait]
/// impl PaymentBackend for MyNode {
///     fn capabilities(&self) -> Capabilities {
///         Capabilities::node(Network::Bitcoin).with_step_msat(1_000)
///     }
///
///     async fn create_invoice(&self, ask: &InvoiceRequest) -> Result<Invoice, BackendError> {
///         let bolt11 = self.http.post("/invoice", ask.amount_msat / 1_000).await.map_err(BackendError::connect)?;
///         Ok(Invoice::from_bolt11(bolt11))
///     }
/// }
/// ```
#[async_trait]
pub trait PaymentBackend: fmt::Debug + Send + Sync {
    /// What the backend is and can do. Asked once, when the issuer is built.
    fn capabilities(&self) -> Capabilities;

    /// Makes an invoice.
    ///
    /// # Errors
    /// A [`BackendError`] of the kind that fits. The client is answered 503
    /// with Retry-After.
    async fn create_invoice(&self, ask: &InvoiceRequest) -> Result<Invoice, BackendError>;

    /// What became of an invoice it made. `handle` is the invoice's own, where
    /// it has one. Called where `capabilities` name a
    /// [look-up](Capabilities::with_look_up), which a backend that only makes
    /// invoices leaves out together with this method.
    ///
    /// # Errors
    /// A [`BackendError`] of the kind that fits. An invoice that the backend
    /// does not know is no error: [`InvoiceState::Unknown`].
    async fn look_up(
        &self,
        payment_hash: PaymentHash,
        handle: Option<&str>,
    ) -> Result<InvoiceState, BackendError> {
        let _ = (payment_hash, handle);
        Err(BackendError::unsupported())
    }

    /// Whether it can be reached and takes our credentials, without making
    /// anything: for a readiness probe, through
    /// [`Issuer::check_backend`](crate::Issuer::check_backend).
    ///
    /// # Errors
    /// Why it cannot be used; [`Unsupported`](BackendErrorKind::Unsupported)
    /// unless written otherwise.
    async fn check_health(&self) -> Result<(), BackendError> {
        Err(BackendError::unsupported())
    }
}

#[async_trait]
impl<B: PaymentBackend + ?Sized> PaymentBackend for Arc<B> {
    fn capabilities(&self) -> Capabilities {
        (**self).capabilities()
    }

    async fn create_invoice(&self, ask: &InvoiceRequest) -> Result<Invoice, BackendError> {
        (**self).create_invoice(ask).await
    }

    async fn look_up(
        &self,
        payment_hash: PaymentHash,
        handle: Option<&str>,
    ) -> Result<InvoiceState, BackendError> {
        (**self).look_up(payment_hash, handle).await
    }

    async fn check_health(&self) -> Result<(), BackendError> {
        (**self).check_health().await
    }
}

/// An invoice that is asked for. Beside the terms it names the sale, so that
/// an operator finds it in the node's books.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct InvoiceRequest {
    /// The amount in msat, a multiple of the backend's step and never zero.
    pub amount_msat: u64,
    /// What the payer is shown.
    pub description: String,
    /// How long the invoice can be paid, in whole seconds.
    pub expiry: Duration,
    /// The name of the service that is sold.
    pub service: String,
    /// The id of the offer that is sold.
    pub offer: String,
    /// The id of the token that the payment makes valid: unique, so a key for
    /// idempotent creation.
    pub token_id: TokenId,
}

#[cfg(feature = "test-util")]
impl InvoiceRequest {
    /// A request for an invoice of this amount, to test a backend with: payable
    /// for 5 minutes, with a token id of its own.
    #[cfg_attr(docsrs, doc(cfg(feature = "test-util")))]
    pub fn test(amount_msat: u64) -> Self {
        Self {
            amount_msat,
            description: "test".to_owned(),
            expiry: Duration::from_secs(300),
            service: "test".to_owned(),
            offer: "default".to_owned(),
            token_id: crate::entropy::random::<32>(&crate::entropy::SystemEntropy).into(),
        }
    }
}

/// An invoice as a backend gave it: not checked yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invoice {
    pub(crate) bolt11: String,
    pub(crate) payment_hash: Option<PaymentHash>,
    pub(crate) handle: Option<String>,
}

impl Invoice {
    /// The invoice of this BOLT 11 text.
    pub fn from_bolt11(bolt11: impl Into<String>) -> Self {
        Self { bolt11: bolt11.into(), payment_hash: None, handle: None }
    }

    /// Adds the payment hash that the backend named beside the text; an
    /// invoice with another one is refused.
    pub fn with_payment_hash(mut self, payment_hash: PaymentHash) -> Self {
        self.payment_hash = Some(payment_hash);
        self
    }

    /// The BOLT 11 text.
    pub fn bolt11(&self) -> &str {
        &self.bolt11
    }

    /// The payment hash that the backend named beside the text.
    pub fn payment_hash(&self) -> Option<PaymentHash> {
        self.payment_hash
    }

    /// What the backend has to be told to find the invoice again.
    pub fn handle(&self) -> Option<&str> {
        self.handle.as_deref()
    }

    /// Adds what the backend has to be told to find the invoice again: 1 to
    /// 256 characters of visible ASCII, where its look-up is by
    /// [`LookUpBy::Handle`]. It goes into the token, where the holder can read it.
    pub fn with_handle(mut self, handle: impl Into<String>) -> Self {
        self.handle = Some(handle.into());
        self
    }
}

/// What became of an invoice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvoiceState {
    /// It can still be paid, or a payment is on its way.
    Open,
    /// It was paid in full.
    Settled,
    /// It was not paid, and no longer can be: expired or cancelled.
    Closed,
    /// The backend has no such invoice.
    Unknown,
}

impl InvoiceState {
    /// The name in events.
    #[cfg(any(feature = "tracing", feature = "metrics"))]
    pub(crate) fn code(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Settled => "settled",
            Self::Closed => "closed",
            Self::Unknown => "unknown",
        }
    }
}

/// The beginning of a text, of at most `max` bytes.
#[cfg(any(feature = "cln", feature = "lnbits", feature = "lnd", feature = "nwc"))]
fn shortened(text: &str, max: usize) -> &str {
    let end = (0..=max.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or_default()]
}
