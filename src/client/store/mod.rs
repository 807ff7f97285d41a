//! What was bought, and what is being bought: tokens, payments and their sum.
//!
//! One row for each purchase, found by its payment hash. It is written before
//! the wallet is asked, together with the check of the budget, in one atomic
//! step; so a payment that nobody remembers does not exist, and a crash is
//! resumed by looking the payment up.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

use super::budget::{Budget, Limit};
use crate::preimage::{PaymentHash, Preimage};

/// A token that is bought. Times are unix seconds.
#[derive(Clone)]
#[non_exhaustive]
pub struct Purchase {
    /// The hash of the payment: what names the purchase.
    pub payment_hash: PaymentHash,
    /// The origin that sold it: scheme, host and port, as in `https://api.example`.
    pub origin: String,
    /// The path of the request that it was bought for, without its query.
    pub path: String,
    /// What the token opens, as far as it tells: tokens of one origin and scope
    /// can take each other's place.
    pub scope: String,
    /// The token, as the server wrote it: half of a credential.
    pub token: String,
    /// The invoice, a BOLT 11 text.
    pub invoice: String,
    /// The invoice's amount in msat.
    pub amount_msat: u64,
    /// What the payment may cost beside it, in msat.
    pub max_fee_msat: u64,
    /// When the invoice can no longer be paid.
    pub pay_by: u64,
    /// When the token is no longer good, where it says so.
    pub valid_until: Option<u64>,
    /// Whether the token is good for one request alone.
    pub is_single_use: bool,
    /// When it was begun.
    pub begun_at: u64,
    /// What became of it.
    pub state: PurchaseState,
}

/// What became of a [`Purchase`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum PurchaseState {
    /// The wallet was or is about to be asked.
    Pending,
    /// Paid, and the token is held.
    Held {
        /// What the payment revealed.
        preimage: Preimage,
        /// What it cost beside the amount, in msat.
        fee_msat: u64,
        /// When it was paid.
        paid_at: u64,
    },
    /// Paid, and the token is gone: used up, refused, expired, or the wallet
    /// showed no preimage. What is left is the receipt.
    Gone {
        /// What it cost beside the amount, in msat.
        fee_msat: u64,
        /// When it was paid.
        paid_at: u64,
    },
}

impl fmt::Debug for Purchase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Purchase")
            .field("payment_hash", &self.payment_hash)
            .field("origin", &self.origin)
            .field("amount_msat", &self.amount_msat)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

/// Whether a purchase was begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begun {
    /// It is written, and its amount and highest fee are reserved.
    Started,
    /// There is one with this payment hash already; nothing was written.
    Exists,
    /// It would go beyond this limit; nothing was written.
    OverBudget(Limit),
}

/// What was spent, in msat, fees included, with what is reserved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Spent {
    /// At one origin.
    pub origin_msat: u64,
    /// In the last hour.
    pub hour_msat: u64,
    /// In the last day.
    pub day_msat: u64,
    /// In all.
    pub total_msat: u64,
}

/// The store could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("token store is unavailable")]
pub struct StoreError(#[source] Box<dyn std::error::Error + Send + Sync>);

impl StoreError {
    /// Wraps the cause, which must hold no secret.
    pub fn new(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self(cause.into())
    }
}

/// Keeps purchases.
///
/// # Contract
/// - `begin` is one atomic step over everybody who shares the store: at no
///   instant do the purchases in it go beyond a limit that was checked.
/// - Every operation is idempotent, and durable when it returns, where the
///   store is.
/// - What was spent is never forgotten: a receipt that is dropped for room
///   stays in the sums.
#[async_trait]
pub trait TokenStore: fmt::Debug + Send + Sync {
    /// Writes a pending purchase, if the budget allows it.
    async fn begin(&self, purchase: &Purchase, budget: &Budget, now: u64) -> Result<Begun, StoreError>;

    /// The payment was made: a pending purchase is held from now on; `None` for
    /// the preimage where the wallet shows none, and then it is gone.
    async fn settle(
        &self,
        payment_hash: PaymentHash,
        preimage: Option<Preimage>,
        fee_msat: u64,
        now: u64,
    ) -> Result<(), StoreError>;

    /// The payment was not made and never will be: a pending purchase is
    /// removed, and what it reserved is free again.
    async fn fail(&self, payment_hash: PaymentHash) -> Result<(), StoreError>;

    /// The token is of no more use: a held purchase is gone, its receipt stays.
    async fn discard(&self, payment_hash: PaymentHash) -> Result<(), StoreError>;

    /// The purchases of an origin that are pending or held, the latest first.
    async fn of_origin(&self, origin: &str) -> Result<Vec<Purchase>, StoreError>;

    /// All purchases that are kept, the latest first.
    async fn all(&self) -> Result<Vec<Purchase>, StoreError>;

    /// What was spent until now, and at this origin.
    async fn spent(&self, origin: &str, now: u64) -> Result<Spent, StoreError>;
}

#[async_trait]
impl<T: TokenStore + ?Sized> TokenStore for Arc<T> {
    async fn begin(&self, purchase: &Purchase, budget: &Budget, now: u64) -> Result<Begun, StoreError> {
        (**self).begin(purchase, budget, now).await
    }

    async fn settle(
        &self,
        payment_hash: PaymentHash,
        preimage: Option<Preimage>,
        fee_msat: u64,
        now: u64,
    ) -> Result<(), StoreError> {
        (**self).settle(payment_hash, preimage, fee_msat, now).await
    }

    async fn fail(&self, payment_hash: PaymentHash) -> Result<(), StoreError> {
        (**self).fail(payment_hash).await
    }

    async fn discard(&self, payment_hash: PaymentHash) -> Result<(), StoreError> {
        (**self).discard(payment_hash).await
    }

    async fn of_origin(&self, origin: &str) -> Result<Vec<Purchase>, StoreError> {
        (**self).of_origin(origin).await
    }

    async fn all(&self) -> Result<Vec<Purchase>, StoreError> {
        (**self).all().await
    }

    async fn spent(&self, origin: &str, now: u64) -> Result<Spent, StoreError> {
        (**self).spent(origin, now).await
    }
}
