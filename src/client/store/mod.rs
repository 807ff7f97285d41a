//! What was bought, and what is being bought: tokens, payments and their sum.
//!
//! One row for each purchase, found by its payment hash. It is written before
//! the wallet is asked, together with the check of the budget, in one atomic
//! step; so a payment that nobody remembers does not exist, and a crash is
//! resumed by looking the payment up.
//!
//! `book.rs` has what each operation does, `memory.rs` and `file.rs` keep a
//! book; `sqlite.rs` does the same to tables.

mod book;
mod file;
mod memory;
#[cfg(feature = "sqlite")]
mod sqlite;

use std::fmt;
use std::fs::Metadata;
use std::sync::Arc;

use async_trait::async_trait;
use zeroize::Zeroize;

use super::budget::{Budget, Limit};
use crate::preimage::{PaymentHash, Preimage};

pub use file::FileStore;
pub use memory::MemoryStore;
#[cfg(feature = "sqlite")]
pub use sqlite::SqliteStore;

/// What counts as the last hour and the last day, in seconds.
const HOUR: u64 = 3_600;
const DAY: u64 = 86_400;

/// A token that is bought. Times are unix seconds. The token is zeroed when
/// this is dropped.
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
    /// The token, as the server wrote it: half of a credential. Empty when it is gone.
    pub token: String,
    /// The invoice, a BOLT 11 text. Empty when the token is gone.
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

impl Purchase {
    /// A pending purchase of this amount, in msat, begun at this time. What else
    /// is known of it is set in its fields.
    pub fn new(
        payment_hash: PaymentHash,
        origin: impl Into<String>,
        amount_msat: u64,
        begun_at: u64,
    ) -> Self {
        Self {
            payment_hash,
            origin: origin.into(),
            path: String::new(),
            scope: String::new(),
            token: String::new(),
            invoice: String::new(),
            amount_msat,
            max_fee_msat: 0,
            pay_by: begun_at,
            valid_until: None,
            is_single_use: false,
            begun_at,
            state: PurchaseState::Pending,
        }
    }

    /// What it counts against a budget, in msat: its amount and the highest fee
    /// while it is pending, then its amount and the fee.
    pub fn cost_msat(&self) -> u64 {
        let fee_msat = match self.state {
            PurchaseState::Pending => self.max_fee_msat,
            PurchaseState::Held { fee_msat, .. } | PurchaseState::Gone { fee_msat, .. } => fee_msat,
        };
        self.amount_msat.saturating_add(fee_msat)
    }

    /// The payment was made. Whether that is new.
    fn settle(&mut self, preimage: Option<Preimage>, fee_msat: u64, paid_at: u64) -> bool {
        let is_pending = matches!(self.state, PurchaseState::Pending);
        if is_pending {
            match preimage {
                Some(preimage) => self.state = PurchaseState::Held { preimage, fee_msat, paid_at },
                None => self.go(fee_msat, paid_at),
            }
        }
        is_pending
    }

    /// The token is of no more use. Whether that is new.
    fn discard(&mut self) -> bool {
        let PurchaseState::Held { fee_msat, paid_at, .. } = self.state else { return false };
        self.go(fee_msat, paid_at);
        true
    }

    fn go(&mut self, fee_msat: u64, paid_at: u64) {
        self.state = PurchaseState::Gone { fee_msat, paid_at };
        self.token.zeroize();
        self.invoice = String::new();
    }
}

impl Drop for Purchase {
    fn drop(&mut self) {
        self.token.zeroize();
    }
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

impl Spent {
    /// Adds what a purchase costs, to the sums that it belongs in: those of this
    /// origin and of this time. One that was begun later than now, by a clock
    /// that was ahead, belongs in the last hour and day.
    pub fn add(&mut self, purchase: &Purchase, origin: &str, now: u64) {
        let cost_msat = purchase.cost_msat();
        if purchase.origin == origin {
            self.origin_msat = self.origin_msat.saturating_add(cost_msat);
        }
        self.add_at(cost_msat, purchase.begun_at, now);
    }

    /// Adds what was begun at a time, whatever its origin.
    fn add_at(&mut self, cost_msat: u64, begun_at: u64, now: u64) {
        for (sum, seconds) in [(&mut self.hour_msat, HOUR), (&mut self.day_msat, DAY)] {
            if begun_at.saturating_add(seconds) > now {
                *sum = sum.saturating_add(cost_msat);
            }
        }
        self.total_msat = self.total_msat.saturating_add(cost_msat);
    }
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

/// # Errors
/// A file that is there is not its owner's alone.
#[cfg_attr(not(unix), expect(clippy::unnecessary_wraps, reason = "as on unix"))]
fn check_private(metadata: &Metadata) -> Result<(), &'static str> {
    #[cfg(unix)]
    if std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o077 != 0 {
        return Err("it holds credentials, and others than its owner may read or write it: \
                    take that away with `chmod 600`");
    }
    #[cfg(not(unix))]
    let _ = metadata;
    Ok(())
}

/// Keeps purchases.
///
/// # Contract
/// - `begin` is one atomic step over everybody who shares the store: at no
///   instant do the purchases in it go beyond a limit that was checked. What
///   counts is [`Spent::add`] over all of them, what is allowed
///   [`Budget::allows`].
/// - Every operation is idempotent, and durable when it returns, where the
///   store is. One that was begun may be done to its end though the future is
///   dropped.
/// - A purchase goes from pending to held to gone, or is removed while it is
///   pending; nothing leads back.
/// - A token that is gone is forgotten, with its preimage and invoice. One that
///   expired may go by itself.
/// - What was spent is never forgotten: a receipt that is dropped for room
///   stays in the sums.
/// - No error and no `Debug` holds a token or a preimage.
///
/// The stores of the crate keep 10,000 receipts of tokens that are gone. What
/// is dropped stays in the sum of its origin, for the first 10,000 origins that
/// something was dropped of, and else in the sum of all alone; in those of hour
/// and day it stays up to a minute longer than it would have. They keep
/// 10,000 tokens that are pending or held: beyond, the oldest that is held is
/// gone, and where all are pending none is begun.
///
/// Of several processes that share a store, one may use what another has bought,
/// a token for one request too: then the other one buys again.
///
/// `conformance::token_store` (feature `test-util`) checks the contract against
/// a store of yours.
#[async_trait]
pub trait TokenStore: fmt::Debug + Send + Sync {
    /// Writes a pending purchase, if the budget allows it.
    ///
    /// # Errors
    /// The store cannot be read or written; whether the purchase is written is
    /// not known.
    async fn begin(&self, purchase: &Purchase, budget: &Budget, now: u64) -> Result<Begun, StoreError>;

    /// The payment was made: a pending purchase is held from now on; `None` for
    /// the preimage where the wallet shows none, and then it is gone.
    ///
    /// # Errors
    /// The store cannot be read or written, or holds no such purchase: then
    /// there was a payment that no sum knows of.
    async fn settle(
        &self,
        payment_hash: PaymentHash,
        preimage: Option<Preimage>,
        fee_msat: u64,
        now: u64,
    ) -> Result<(), StoreError>;

    /// The payment was not made and never will be: a pending purchase is
    /// removed, and what it reserved is free again.
    ///
    /// # Errors
    /// The store cannot be written.
    async fn fail(&self, payment_hash: PaymentHash) -> Result<(), StoreError>;

    /// The token is of no more use: a held purchase is gone, its receipt stays.
    ///
    /// # Errors
    /// The store cannot be written.
    async fn discard(&self, payment_hash: PaymentHash) -> Result<(), StoreError>;

    /// The purchases of an origin that are pending or held, the latest first.
    ///
    /// # Errors
    /// The store cannot be read.
    async fn of_origin(&self, origin: &str) -> Result<Vec<Purchase>, StoreError>;

    /// All purchases that are kept, the latest first.
    ///
    /// # Errors
    /// The store cannot be read.
    async fn all(&self) -> Result<Vec<Purchase>, StoreError>;

    /// What was spent until now, and at this origin.
    ///
    /// # Errors
    /// The store cannot be read.
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
