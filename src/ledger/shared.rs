//! What ledgers on a server have in common.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::AbortHandle;
use tokio::time::{MissedTickBehavior, interval};

use super::{LedgerError, Reserved, Revocation};
use crate::preimage::PaymentHash;

/// How long one operation may take, waiting for a connection included.
pub(super) const TIME_LIMIT: Duration = Duration::from_secs(5);
/// How long a row outlives its token, in seconds.
pub(super) const MARGIN: u64 = 60;
/// Most reservations that are listed at once.
pub(super) const MAX_LISTED: u32 = 10_000;
/// How often the revocations of other servers are read.
const REFRESH: Duration = Duration::from_secs(5);

/// What the store holds is not what this ledger wrote.
pub(super) fn unreadable(what: &str) -> LedgerError {
    LedgerError::new(format!("the store holds {what} that cannot be read"))
}

/// What a store answers to a reserve: what is left, or a negative number.
pub(super) fn reserved(answer: i64) -> Result<Reserved, LedgerError> {
    match answer {
        -1 => Ok(Reserved::UsedUp),
        -2 => Ok(Reserved::Released),
        -3 => Ok(Reserved::Expired),
        left => u64::try_from(left)
            .map(|remaining| Reserved::Open { remaining })
            .map_err(|_| unreadable("an answer")),
    }
}

/// A revocation as it is stored: its kind, its subject, and the moment.
pub(super) type Row = (u8, Vec<u8>, u64);

pub(super) fn to_row(revocation: &Revocation) -> Row {
    match revocation {
        Revocation::Token(hash) => (0, hash.as_bytes().to_vec(), 0),
        Revocation::Service { name, issued_before } => (1, name.as_bytes().to_vec(), *issued_before),
        Revocation::Key(id) => (2, id.to_vec(), 0),
    }
}

pub(super) fn from_row((kind, subject, issued_before): Row) -> Result<Revocation, LedgerError> {
    let read = match kind {
        0 => subject.try_into().ok().map(|hash| Revocation::Token(PaymentHash::from_bytes(hash))),
        1 => String::from_utf8(subject).ok().map(|name| Revocation::Service { name, issued_before }),
        2 => subject.try_into().ok().map(Revocation::Key),
        _ => None,
    };
    // One that is passed over would honour what was revoked.
    read.ok_or_else(|| unreadable("a revocation"))
}

/// Does something every [`REFRESH`], until it is dropped.
pub(super) struct Refresh(AbortHandle);

impl Refresh {
    pub(super) fn start<T, F>(store: &Arc<T>, refresh: impl Fn(Arc<T>) -> F + Send + 'static) -> Self
    where
        T: Send + Sync + 'static,
        F: Future<Output = Result<(), LedgerError>> + Send,
    {
        let store = store.clone();
        let task = tokio::spawn(async move {
            let mut ticks = interval(REFRESH);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks.tick().await;
            loop {
                ticks.tick().await;
                // Where the store is away, what was known stays in force.
                let _ = refresh(store.clone()).await;
            }
        });
        Self(task.abort_handle())
    }
}

impl Drop for Refresh {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl fmt::Debug for Refresh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Refresh")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revocation_is_read_as_it_was_stored() {
        for revocation in [
            Revocation::Token([7; 32].into()),
            Revocation::Service { name: "forecast".into(), issued_before: 1_900_000_000 },
            Revocation::Key([1, 2, 3, 4]),
        ] {
            assert_eq!(from_row(to_row(&revocation)).unwrap(), revocation);
        }
    }

    #[test]
    fn an_unreadable_revocation_is_an_error() {
        for row in [(0, vec![7; 31], 0), (1, vec![0xff], 0), (2, vec![1; 5], 0), (3, vec![], 0)] {
            assert!(from_row(row.clone()).is_err(), "{row:?}");
        }
    }

    #[tokio::test]
    async fn a_refresh_ends_with_its_ledger() {
        tokio::time::pause();
        let store = Arc::new(());
        let refresh = Refresh::start(&store, |_| async { Ok(()) });
        tokio::task::yield_now().await;
        assert_eq!(Arc::strong_count(&store), 2);
        drop(refresh);
        while Arc::strong_count(&store) > 1 {
            tokio::task::yield_now().await;
        }
    }
}
