//! Who has used what: the one place where a count is kept.
//!
//! A metered request reserves its use before the inner service is called. The
//! reservation is committed when the head of a good response is there, and
//! released when the request failed for no fault of the client's. One that
//! ends neither way, because the process died, counts as spent once its lease
//! is over, and is listed.

mod guard;
mod memory;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "redis")]
mod redis;
mod revocation;
#[cfg(any(feature = "postgres", feature = "redis"))]
mod shared;
#[cfg(feature = "sqlite")]
mod sqlite;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

pub(crate) use guard::{Debit, Meter, OnDrop, Reservation};
pub use memory::MemoryLedger;
#[cfg(feature = "postgres")]
#[cfg_attr(docsrs, doc(cfg(feature = "postgres")))]
pub use postgres::PostgresLedger;
#[cfg(feature = "redis")]
#[cfg_attr(docsrs, doc(cfg(feature = "redis")))]
pub use redis::{RedisLedger, RedisLedgerBuilder};
pub use revocation::{Revocation, Revocations};
#[cfg(feature = "sqlite")]
#[cfg_attr(docsrs, doc(cfg(feature = "sqlite")))]
pub use sqlite::{SqliteLedger, Synchronous};

use crate::preimage::PaymentHash;

/// How long a reservation is open, in seconds, before it counts as spent.
pub const LEASE: Duration = Duration::from_secs(600);

/// The account that a token's uses are taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AccountId([u8; 32]);

impl AccountId {
    /// The 32 bytes, to be a key in a store.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl From<[u8; 32]> for AccountId {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl From<PaymentHash> for AccountId {
    fn from(hash: PaymentHash) -> Self {
        Self(*hash.as_bytes())
    }
}

/// One reservation of one account. The caller makes it before the call, so
/// that it can be released even where no answer came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ReservationId {
    account: AccountId,
    nonce: [u8; 16],
}

impl ReservationId {
    /// The reservation with these 128 random bits.
    pub fn new(account: AccountId, nonce: [u8; 16]) -> Self {
        Self { account, nonce }
    }

    /// The account it belongs to.
    pub fn account(&self) -> AccountId {
        self.account
    }

    /// What tells it from the others of its account.
    pub fn nonce(&self) -> &[u8; 16] {
        &self.nonce
    }
}

/// A use that is asked for. Times are unix seconds.
#[derive(Clone, Copy, Debug)]
pub struct Reserve {
    /// The reservation to be made.
    pub id: ReservationId,
    /// How many units it takes.
    pub units: u64,
    /// How many units the token was sold with.
    pub limit: u64,
    /// The most units that may be used with this token, whatever was credited:
    /// the holder's own restriction.
    pub ceiling: u64,
    /// When the token as it was sold expires, and its row with it. Never
    /// earlier because its holder shortened a copy: the row would be gone
    /// while the token is good.
    pub expires_at: u64,
    /// The present moment.
    pub now: u64,
}

/// What became of a [`Reserve`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reserved {
    /// The units are spent for now.
    Open {
        /// How many are left.
        remaining: u64,
    },
    /// Fewer are left than were asked for.
    UsedUp,
    /// The reservation was released before it was made.
    Released,
    /// The token is so old that its row may be gone.
    Expired,
}

/// What an account has had and has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Account {
    /// Units sold, with those credited later.
    pub limit: u64,
    /// Units spent, with those of open reservations.
    pub used: u64,
    /// Unix second at which the row may go.
    pub expires_at: u64,
}

/// A reservation that has neither been committed nor released.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenReservation {
    /// Which one.
    pub id: ReservationId,
    /// How many units it holds.
    pub units: u64,
    /// The unix second past which it counts as spent.
    pub lease_until: u64,
}

/// The use could not be counted. The request is refused (503), never admitted.
#[derive(Debug, thiserror::Error)]
#[error("ledger is unavailable")]
pub struct LedgerError(#[source] Box<dyn std::error::Error + Send + Sync>);

impl LedgerError {
    /// Wraps the cause, which is shown to the operator alone, in a log; it must
    /// hold no secret.
    pub fn new(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self(cause.into())
    }
}

/// How many released units end the releases of an account: `max(2, sold / 10)`,
/// at most 100, and 1 for a single use. A caller can provoke failures, so they
/// are not forgiven without end.
pub fn release_cap(limit: u64) -> u64 {
    if limit == 1 { 1 } else { (limit / 10).clamp(2, 100) }
}

/// Keeps the counts of metered tokens.
///
/// # Contract
/// - `committed + open <= limit + credited` at every instant, for as long as
///   the store lives: `reserve` is one conditional update, never a read and
///   then a write.
/// - Every operation is idempotent. The caller runs each to its end once it has
///   begun, or for a [`LEASE`], and may call `release` before, after or while
///   `reserve` of the same id runs.
/// - A release that comes first leaves a tombstone, so that the reserve that
///   comes later answers [`Reserved::Released`].
/// - A release gives units back as long as the account has had fewer than
///   [`release_cap`] (of `limit + credited`) units back, so that a dear request is
///   forgiven once.
///   Otherwise, and past the [`LEASE`], it gives nothing back.
/// - Rows exist for paid tokens alone and go some time after `expires_at`. What
///   would have been purged already is refused ([`Reserved::Expired`]), so that
///   a clock that goes back revives no used-up token.
/// - A ledger that cannot answer gives an error and has not admitted anything.
#[async_trait]
pub trait Ledger: fmt::Debug + Send + Sync {
    /// What names this store if it is lost with the process. The keys of the
    /// metered tokens that it backs depend on it, so that a restart makes them
    /// unknown and they are not sold twice. `None` for a durable store.
    fn instance(&self) -> Option<[u8; 16]>;

    /// The revocations it knows of, read by every admission. A store that
    /// others write to keeps them fresh.
    fn revocations(&self) -> &Revocations;

    /// Spends units, until they are committed or released.
    async fn reserve(&self, ask: &Reserve) -> Result<Reserved, LedgerError>;

    /// Makes a reservation final.
    async fn commit(&self, id: &ReservationId) -> Result<(), LedgerError>;

    /// Gives a reservation back.
    async fn release(&self, id: &ReservationId, now: u64) -> Result<(), LedgerError>;

    /// Adds units to an account, once for each event id. The row stays until
    /// this unix second at least.
    async fn credit(
        &self,
        account: &AccountId,
        units: u64,
        event_id: &str,
        expires_at: u64,
    ) -> Result<(), LedgerError>;

    /// What an account has had; `None` where it was never used.
    async fn account(&self, account: &AccountId) -> Result<Option<Account>, LedgerError>;

    /// Stores a revocation, and adds it to [`revocations`](Self::revocations).
    async fn revoke(&self, revocation: &Revocation) -> Result<(), LedgerError>;

    /// The reservations that are open, those past their lease among them.
    async fn open_reservations(&self) -> Result<Vec<OpenReservation>, LedgerError>;
}

#[async_trait]
impl<L: Ledger + ?Sized> Ledger for Arc<L> {
    fn instance(&self) -> Option<[u8; 16]> {
        (**self).instance()
    }

    fn revocations(&self) -> &Revocations {
        (**self).revocations()
    }

    async fn reserve(&self, ask: &Reserve) -> Result<Reserved, LedgerError> {
        (**self).reserve(ask).await
    }

    async fn commit(&self, id: &ReservationId) -> Result<(), LedgerError> {
        (**self).commit(id).await
    }

    async fn release(&self, id: &ReservationId, now: u64) -> Result<(), LedgerError> {
        (**self).release(id, now).await
    }

    async fn credit(
        &self,
        account: &AccountId,
        units: u64,
        event_id: &str,
        expires_at: u64,
    ) -> Result<(), LedgerError> {
        (**self).credit(account, units, event_id, expires_at).await
    }

    async fn account(&self, account: &AccountId) -> Result<Option<Account>, LedgerError> {
        (**self).account(account).await
    }

    async fn revoke(&self, revocation: &Revocation) -> Result<(), LedgerError> {
        (**self).revoke(revocation).await
    }

    async fn open_reservations(&self) -> Result<Vec<OpenReservation>, LedgerError> {
        (**self).open_reservations().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_capped_by_what_was_sold() {
        let caps = [(1, 1), (2, 2), (7, 2), (20, 2), (50, 5), (100, 10), (1000, 100), (1_000_000, 100)];
        for (limit, cap) in caps {
            assert_eq!(release_cap(limit), cap, "{limit}");
        }
    }
}
