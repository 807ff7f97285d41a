//! What is limited: the invoices that are made at once and the time of each,
//! payment hashes to one sale, and the rate of a pass.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::offer::Rate;
use crate::preimage::PaymentHash;
use crate::recent::Recent;

#[derive(Debug)]
pub(crate) struct Limits {
    in_flight: Semaphore,
    pub(crate) time_limit: Duration,
    pub(crate) rates: Rates,
}

impl Limits {
    pub(crate) fn new(in_flight: usize, time_limit: Duration) -> Self {
        Self { in_flight: Semaphore::new(in_flight), time_limit, rates: Rates::new() }
    }

    /// A place among the invoices that are made at once; `None` where all are taken.
    pub(crate) fn enter(&self) -> Option<SemaphorePermit<'_>> {
        self.in_flight.try_acquire().ok()
    }
}

/// What this process has sold, whichever issuer did.
static SOLD: LazyLock<Mutex<Recent>> = LazyLock::new(Mutex::default);

/// Remembers a payment hash; `false` where it was sold before.
pub(crate) fn is_new(hash: PaymentHash) -> bool {
    SOLD.lock().unwrap_or_else(PoisonError::into_inner).insert(hash)
}

/// How many passes have a rate kept at once, in each of 32 shards: 32,768 in
/// all, under 4 MiB. A pass that finds no place has to wait.
const RATED_PER_SHARD: usize = 1024;
const SHARDS: usize = 32;

/// The rates of passes, by the generic cell rate algorithm: a token's next
/// request is due a step of `seconds / n` after the one before, and may come
/// early by as much as a whole burst of `n` steps.
#[derive(Debug)]
pub(crate) struct Rates {
    /// When each token's next request is due, in nanoseconds since the epoch.
    shards: Vec<Mutex<HashMap<PaymentHash, u128>>>,
}

impl Rates {
    fn new() -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect() }
    }

    /// Counts a request now, or says how long to wait.
    pub(crate) fn check(&self, token: PaymentHash, rate: Rate, now: SystemTime) -> Result<(), Duration> {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let burst = Duration::from_secs(rate.seconds.get()).as_nanos();
        let step = burst.div_ceil(u128::from(rate.n.get()));
        let shard = &self.shards[usize::from(token.as_bytes()[0]) % SHARDS];
        let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        if shard.len() >= RATED_PER_SHARD && !shard.contains_key(&token) {
            shard.retain(|_, due| *due > now);
            if shard.len() >= RATED_PER_SHARD {
                return Err(Duration::from_secs(1));
            }
        }
        let due = shard.entry(token).or_insert(now);
        let next = (*due).max(now) + step;
        let wait = next.saturating_sub(now + burst);
        if wait > 0 {
            return Err(Duration::from_nanos(u64::try_from(wait).unwrap_or(u64::MAX)));
        }
        *due = next;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(n: usize) -> PaymentHash {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&n.to_be_bytes());
        bytes.into()
    }

    #[test]
    fn a_rate_allows_a_burst_and_then_one_request_a_step() {
        let (rates, rate) = (Rates::new(), Rate::new(10, 60).unwrap());
        let at = |millis: u64| UNIX_EPOCH + Duration::from_millis(1_900_000_000_000 + millis);
        for _ in 0..10 {
            assert_eq!(rates.check(hash(1), rate, at(0)), Ok(()));
        }
        assert_eq!(rates.check(hash(1), rate, at(0)), Err(Duration::from_secs(6)));
        assert_eq!(rates.check(hash(2), rate, at(0)), Ok(()), "another pass has its own rate");
        assert_eq!(rates.check(hash(1), rate, at(5_999)), Err(Duration::from_millis(1)));
        assert_eq!(rates.check(hash(1), rate, at(6_000)), Ok(()));
        assert!(rates.check(hash(1), rate, at(6_000)).is_err());
    }

    #[test]
    fn the_table_of_rates_is_bounded_and_forgets_idle_passes() {
        let (rates, rate) = (Rates::new(), Rate::new(1, 1).unwrap());
        let at = |seconds: u64| UNIX_EPOCH + Duration::from_secs(1_900_000_000 + seconds);
        let crowd = |from: usize| (from..from + RATED_PER_SHARD).map(hash);
        assert!(crowd(0).all(|token| rates.check(token, rate, at(0)).is_ok()), "all of one shard");
        assert!(rates.check(hash(RATED_PER_SHARD), rate, at(0)).is_err(), "no place left");
        assert!(
            crowd(5_000).all(|token| rates.check(token, rate, at(2)).is_ok()),
            "the first are idle by now"
        );
    }
}
