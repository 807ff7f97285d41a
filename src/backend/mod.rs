//! Where invoices come from: a Lightning node or wallet behind one trait.

#[cfg(feature = "dev")]
mod dev;

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::macaroon::TokenId;
use crate::preimage::PaymentHash;

#[cfg(feature = "dev")]
#[cfg_attr(docsrs, doc(cfg(feature = "dev")))]
pub use dev::{DevBackend, DevPayError};

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
/// - `create_invoice` may be called at once from many requests and may be
///   dropped at any await. The crate bounds the calls in flight and their time.
/// - An error says what happened by its kind; its text holds no secret.
///
/// The crate trusts none of this: it parses every invoice and refuses one that
/// is not as asked.
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
}

#[async_trait]
impl<B: PaymentBackend + ?Sized> PaymentBackend for Arc<B> {
    fn capabilities(&self) -> Capabilities {
        (**self).capabilities()
    }

    async fn create_invoice(&self, ask: &InvoiceRequest) -> Result<Invoice, BackendError> {
        (**self).create_invoice(ask).await
    }
}

/// What a backend is and can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    network: Network,
    step_msat: u64,
    sets_expiry: bool,
}

impl Capabilities {
    /// A node on this network that forwards HTLCs, so that a preimage proves a
    /// payment. It bills any msat and sets an invoice's expiry, unless said
    /// otherwise.
    pub const fn node(network: Network) -> Self {
        Self { network, step_msat: 1, sets_expiry: true }
    }

    /// The smallest step in which it bills, in msat: 1,000 for whole satoshis.
    /// Amounts are rounded up to it.
    ///
    /// # Panics
    /// On zero; in a `const`, that does not compile.
    pub const fn with_step_msat(mut self, step_msat: u64) -> Self {
        assert!(step_msat > 0, "a step of 0 msat bills nothing");
        self.step_msat = step_msat;
        self
    }

    /// The backend chooses how long an invoice lasts; it may be longer than
    /// asked. A token then lasts from the end of its invoice, however late that
    /// is, so that who pays in time gets all that was sold.
    pub const fn with_fixed_expiry(mut self) -> Self {
        self.sets_expiry = false;
        self
    }

    /// The network whose payments it takes.
    pub fn network(&self) -> Network {
        self.network
    }

    /// The smallest step in which it bills, in msat.
    pub fn step_msat(&self) -> u64 {
        self.step_msat
    }

    /// Whether it sets the expiry that is asked for.
    pub fn sets_expiry(&self) -> bool {
        self.sets_expiry
    }
}

/// An invoice that is asked for. Beside the terms it names the sale, so that
/// an operator finds it in the node's books.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct InvoiceRequest {
    /// The amount in msat, a multiple of the backend's step.
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

/// An invoice as a backend gave it: not checked yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invoice {
    pub(crate) bolt11: String,
    pub(crate) payment_hash: Option<PaymentHash>,
}

impl Invoice {
    /// The invoice of this BOLT 11 text.
    pub fn from_bolt11(bolt11: impl Into<String>) -> Self {
        Self { bolt11: bolt11.into(), payment_hash: None }
    }

    /// Adds the payment hash that the backend named beside the text; an
    /// invoice with another one is refused.
    pub fn with_payment_hash(mut self, payment_hash: PaymentHash) -> Self {
        self.payment_hash = Some(payment_hash);
        self
    }
}

/// Why a backend made no invoice.
pub struct BackendError {
    kind: BackendErrorKind,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// The kinds of [`BackendError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BackendErrorKind {
    /// Not reached: nothing was sent.
    Connect,
    /// No answer in time: it may have happened.
    Timeout,
    /// The credentials of the backend are wrong or lack a permission.
    Auth,
    /// Asked too often.
    RateLimited {
        /// When to ask again, if it said so.
        retry_after: Option<Duration>,
    },
    /// The invoice that was asked for is not one it makes.
    Rejected,
    /// The answer is not what it should be.
    InvalidResponse,
    /// The backend failed.
    Backend,
}

impl BackendError {
    /// An error of this kind. The cause is shown to the operator alone; it
    /// must hold no secret.
    pub fn new(kind: BackendErrorKind, cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self { kind, source: Some(cause.into()) }
    }

    /// The backend was not reached.
    pub fn connect(cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::new(BackendErrorKind::Connect, cause)
    }

    pub(crate) fn timeout() -> Self {
        Self { kind: BackendErrorKind::Timeout, source: None }
    }

    /// What kind of failure it is.
    pub fn kind(&self) -> BackendErrorKind {
        self.kind
    }
}

impl fmt::Display for BackendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            BackendErrorKind::Connect => "backend was not reached",
            BackendErrorKind::Timeout => "backend did not answer in time",
            BackendErrorKind::Auth => "backend refused our credentials",
            BackendErrorKind::RateLimited { .. } => "backend limits our rate",
            BackendErrorKind::Rejected => "backend does not make such an invoice",
            BackendErrorKind::InvalidResponse => "backend gave an invalid answer",
            BackendErrorKind::Backend => "backend failed",
        })
    }
}

impl fmt::Debug for BackendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BackendError").field("kind", &self.kind).field("source", &self.source).finish()
    }
}

impl StdError for BackendError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_ref().map(|source| &**source as &(dyn StdError + 'static))
    }
}
