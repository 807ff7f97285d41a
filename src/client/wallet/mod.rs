//! Who pays: a Lightning wallet behind one trait.

#[cfg(feature = "cln")]
mod cln;
#[cfg(feature = "dev")]
mod dev;
#[cfg(feature = "lnbits")]
mod lnbits;
#[cfg(feature = "lnd")]
mod lnd;
#[cfg(feature = "nwc")]
mod nwc;
#[cfg(feature = "phoenixd")]
mod phoenixd;
#[cfg(any(feature = "cln", feature = "lnbits", feature = "lnd", feature = "nwc", feature = "phoenixd"))]
#[cfg_attr(not(all(feature = "cln", feature = "lnd", feature = "phoenixd")), allow(dead_code))]
mod settle;

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

#[cfg(feature = "cln")]
#[cfg_attr(docsrs, doc(cfg(feature = "cln")))]
pub use self::cln::ClnWallet;
#[cfg(feature = "lnbits")]
#[cfg_attr(docsrs, doc(cfg(feature = "lnbits")))]
pub use self::lnbits::LnbitsWallet;
#[cfg(feature = "lnd")]
#[cfg_attr(docsrs, doc(cfg(feature = "lnd")))]
pub use self::lnd::LndWallet;
#[cfg(feature = "nwc")]
#[cfg_attr(docsrs, doc(cfg(feature = "nwc")))]
pub use self::nwc::NwcWallet;
#[cfg(feature = "phoenixd")]
#[cfg_attr(docsrs, doc(cfg(feature = "phoenixd")))]
pub use self::phoenixd::PhoenixdWallet;
use crate::backend::{BackendError, Network};
use crate::preimage::{PaymentHash, Preimage};

/// Pays invoices.
///
/// # Contract
/// - `pay` is idempotent per payment hash: where a payment of it is in flight it
///   waits for that one, where it succeeded it gives the same preimage, and it
///   never pays twice.
/// - An error is [definite](PayError::is_definite) only where the payment was
///   not made and no longer can be: everything else (a time limit, an answer
///   that was lost, a status of 409, 429 or 5xx) may have paid.
/// - `status` tells of every payment that `pay` was asked for what became of it.
/// - Where [`limits_fees`](Self::limits_fees) says so, no payment costs more
///   than `max_fee_msat` beside its amount.
/// - Every method may be called at once from many requests, and may be dropped
///   at any await: a payment that was begun goes on.
/// - No error and no `Debug` holds a preimage or a credential of the wallet.
///
/// The crate trusts little of this: it parses the invoice before, and compares
/// the preimage with the payment hash after. `conformance::wallet` (feature
/// `test-util`) checks the contract against a wallet of yours.
#[async_trait]
pub trait Wallet: fmt::Debug + Send + Sync {
    /// The network whose coins it pays with. An invoice of another is not paid.
    fn network(&self) -> Network;

    /// Whether the wallet holds a payment's fee within what it is told. Where it
    /// does not, the fee is known afterwards alone, and may go beyond what the
    /// budget reserved for it.
    fn limits_fees(&self) -> bool;

    /// Pays an invoice, and waits for its preimage.
    ///
    /// # Errors
    /// A [`PayError`], which says whether the payment may still be made.
    ///
    /// # Cancel safety
    /// Dropped, the payment may be made all the same: [`status`](Self::status)
    /// tells.
    async fn pay(&self, payment: &PaymentRequest) -> Result<Payment, PayError>;

    /// What became of a payment.
    ///
    /// # Errors
    /// The wallet could not be asked.
    async fn status(&self, payment_hash: PaymentHash) -> Result<PaymentStatus, BackendError>;
}

#[async_trait]
impl<W: Wallet + ?Sized> Wallet for Arc<W> {
    fn network(&self) -> Network {
        (**self).network()
    }

    fn limits_fees(&self) -> bool {
        (**self).limits_fees()
    }

    async fn pay(&self, payment: &PaymentRequest) -> Result<Payment, PayError> {
        (**self).pay(payment).await
    }

    async fn status(&self, payment_hash: PaymentHash) -> Result<PaymentStatus, BackendError> {
        (**self).status(payment_hash).await
    }
}

/// An invoice to be paid, as it was read and checked.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PaymentRequest {
    /// The invoice, a BOLT 11 text.
    pub bolt11: String,
    /// Its payment hash.
    pub payment_hash: PaymentHash,
    /// Its amount in msat.
    pub amount_msat: u64,
    /// What the payment may cost beside the amount, in msat.
    pub max_fee_msat: u64,
    /// How long the payment may be tried.
    pub time_limit: Duration,
}

impl PaymentRequest {
    /// A request to pay this invoice, with no fee and within a minute.
    pub fn new(bolt11: impl Into<String>, payment_hash: PaymentHash, amount_msat: u64) -> Self {
        let time_limit = Duration::from_secs(60);
        Self { bolt11: bolt11.into(), payment_hash, amount_msat, max_fee_msat: 0, time_limit }
    }

    /// With at most this fee, in msat.
    pub fn with_max_fee_msat(mut self, max_fee_msat: u64) -> Self {
        self.max_fee_msat = max_fee_msat;
        self
    }

    /// Tried for this long at most.
    pub fn with_time_limit(mut self, time_limit: Duration) -> Self {
        self.time_limit = time_limit;
        self
    }
}

/// A payment that was made.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Payment {
    /// What the payment revealed.
    pub preimage: Preimage,
    /// What it cost beside the amount, in msat.
    pub fee_msat: u64,
}

impl Payment {
    /// A payment that revealed this preimage and cost this fee, in msat.
    pub fn new(preimage: Preimage, fee_msat: u64) -> Self {
        Self { preimage, fee_msat }
    }
}

/// What became of a payment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum PaymentStatus {
    /// The wallet was never asked for it, or has forgotten it.
    Unknown,
    /// It is on its way.
    InFlight,
    /// It was made.
    Paid(Payment),
    /// It was made, and the wallet shows no preimage for it.
    PaidNoPreimage,
    /// It was not made and no longer will be.
    Failed,
}

/// Why a payment has no preimage.
pub struct PayError {
    kind: PayErrorKind,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// The kinds of [`PayError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PayErrorKind {
    /// The wallet was not reached, or did not take our credentials: nothing was sent.
    NotSent,
    /// The payment failed, and nothing was paid: no route, too little money,
    /// an invoice that the wallet does not pay.
    Failed,
    /// The payment was made, and the wallet shows no preimage.
    NoPreimage,
    /// Nobody knows yet: it may have been made.
    Uncertain,
}

impl PayError {
    /// An error of this kind. The cause is shown to the operator; it must hold
    /// no secret.
    pub fn new(kind: PayErrorKind, cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self { kind, source: Some(cause.into()) }
    }

    /// What kind of failure it is.
    pub fn kind(&self) -> PayErrorKind {
        self.kind
    }

    /// Whether nothing was paid and nothing will be.
    pub fn is_definite(&self) -> bool {
        matches!(self.kind, PayErrorKind::NotSent | PayErrorKind::Failed)
    }
}

impl fmt::Display for PayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            PayErrorKind::NotSent => "payment was not sent",
            PayErrorKind::Failed => "payment failed",
            PayErrorKind::NoPreimage => "payment was made, and the wallet shows no preimage",
            PayErrorKind::Uncertain => "payment may have been made",
        })
    }
}

impl fmt::Debug for PayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PayError").field("kind", &self.kind).field("source", &self.source).finish()
    }
}

impl StdError for PayError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_ref().map(|source| &**source as &(dyn StdError + 'static))
    }
}
