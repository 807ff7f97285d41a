//! Token buckets, by the generic cell rate algorithm.
//!
//! A bucket is one number: the moment at which its next request is due. Each
//! request moves it a step on, and may come early by as much as a whole burst.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::offer::Rate;

/// `n` requests at once, and one more in each step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Quota {
    /// Nanoseconds.
    step: u64,
    burst: u64,
}

impl Quota {
    /// `n` in each such time, with a burst of `n`. Zero counts as one, of
    /// requests and of nanoseconds.
    pub(crate) const fn new(n: u64, per: Duration) -> Self {
        let n = if n == 0 { 1 } else { n };
        let per = whole_nanos(per);
        let step = if per <= n { 1 } else { per.div_ceil(n) };
        // Not `per`: what `n` does not divide would cost the last of a burst.
        Self { step, burst: step.saturating_mul(n) }
    }

    /// When the next request is due after one that comes now; or how long it
    /// has to wait.
    pub(crate) fn next(self, due: u64, now: u64) -> Result<u64, Duration> {
        let next = due.max(now).saturating_add(self.step);
        match next.saturating_sub(now.saturating_add(self.burst)) {
            0 => Ok(next),
            wait => Err(Duration::from_nanos(wait)),
        }
    }

    /// As if the last request had not come.
    pub(crate) fn give_back(self, due: u64) -> u64 {
        due.saturating_sub(self.step)
    }
}

impl From<Rate> for Quota {
    fn from(rate: Rate) -> Self {
        Self::new(rate.n.get(), Duration::from_secs(rate.seconds.get()))
    }
}

/// A quota that all requests share.
#[derive(Debug)]
pub(crate) struct Bucket {
    quota: Quota,
    due: AtomicU64,
}

impl Bucket {
    pub(crate) fn new(quota: Quota) -> Self {
        Self { quota, due: AtomicU64::new(0) }
    }

    /// How long a request that came now would have to wait, and counts none.
    pub(crate) fn check(&self, now: u64) -> Result<(), Duration> {
        self.quota.next(self.due.load(Ordering::Relaxed), now).map(drop)
    }

    /// Counts a request now, or says how long to wait.
    pub(crate) fn take(&self, now: u64) -> Result<(), Duration> {
        let mut due = self.due.load(Ordering::Relaxed);
        loop {
            let next = self.quota.next(due, now)?;
            match self.due.compare_exchange_weak(due, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Ok(()),
                Err(other) => due = other,
            }
        }
    }
}

/// Nanoseconds since the epoch: until the year 2554.
pub(crate) fn nanos(time: SystemTime) -> u64 {
    whole_nanos(time.duration_since(UNIX_EPOCH).unwrap_or_default())
}

#[expect(clippy::cast_possible_truncation, reason = "compared before")]
pub(super) const fn whole_nanos(duration: Duration) -> u64 {
    let nanos = duration.as_nanos();
    if nanos > u64::MAX as u128 { u64::MAX } else { nanos as u64 }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use governor::clock::FakeRelativeClock;
    use governor::{Quota as GovernorQuota, RateLimiter};
    use proptest::prelude::*;

    use super::*;

    const NOW: u64 = 1_900_000_000_000_000_000;

    #[test]
    fn a_burst_is_whole_also_where_the_count_does_not_divide_the_time() {
        for n in [1, 2, 3, 7, 60, 999] {
            let bucket = Bucket::new(Quota::new(n, Duration::from_secs(1)));
            for i in 0..n {
                assert_eq!(bucket.take(NOW), Ok(()), "{i} of {n}");
            }
            let wait = bucket.take(NOW).unwrap_err();
            assert!(wait <= Duration::from_secs(1), "{n}: {wait:?}");
            let later = NOW + u64::try_from(wait.as_nanos()).unwrap();
            assert!(bucket.take(later - 1).is_err(), "{n}");
            assert_eq!(bucket.take(later), Ok(()), "{n}");
            assert!(bucket.take(later).is_err(), "{n}");
        }
    }

    #[test]
    fn the_largest_and_the_smallest_quota_are_quotas() {
        let never = Bucket::new(Quota::new(u64::MAX, Duration::MAX));
        let mut rare = 0;
        for _ in 0..100 {
            assert_eq!(never.take(NOW), Ok(()));
            rare = Quota::new(0, Duration::MAX).next(rare, NOW).unwrap_or(rare);
        }
        assert_eq!(Quota::new(0, Duration::ZERO), Quota::new(1, Duration::from_nanos(1)));
        assert_eq!(Quota::new(5, Duration::ZERO).next(0, NOW), Ok(NOW + 1));
    }

    #[test]
    fn many_threads_share_one_burst() {
        let bucket = Bucket::new(Quota::new(1000, Duration::from_secs(1)));
        let taken = std::thread::scope(|scope| {
            let count = || (0..500).filter(|_| bucket.take(NOW).is_ok()).count();
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(count)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum::<usize>()
        });
        assert_eq!(taken, 1000);
    }

    proptest! {
        #[test]
        fn a_bucket_decides_and_waits_as_governors_does(
            n in 1_u32..200,
            step in 1_u64..5_000_000_000,
            pauses in prop::collection::vec(prop_oneof![Just(0), 0_u64..10_000_000_000, 0_u64..2_000_000_000_000], 1..300),
        ) {
            let clock = FakeRelativeClock::default();
            let quota = GovernorQuota::with_period(Duration::from_nanos(step)).unwrap()
                .allow_burst(NonZeroU32::new(n).unwrap());
            let oracle = RateLimiter::direct_with_clock(quota, clock.clone());
            let ours = Bucket::new(Quota::new(n.into(), Duration::from_nanos(step) * n));
            let mut now = NOW;
            for pause in pauses {
                now += pause;
                clock.advance(Duration::from_nanos(pause));
                let theirs = oracle.check().map_err(|not_until| {
                    not_until.wait_time_from(governor::clock::Clock::now(&clock))
                });
                prop_assert_eq!(ours.take(now), theirs);
            }
        }

        #[test]
        fn what_is_given_back_can_be_taken_again(n in 1_u64..50, taken in 0_u64..50, pause in 0_u64..3_000_000_000) {
            let quota = Quota::new(n, Duration::from_secs(1));
            let mut due = 0;
            for _ in 0..taken.min(n - 1) {
                due = quota.next(due, NOW).unwrap();
            }
            let left = |mut due, now| {
                let mut left = 0;
                while let Ok(next) = quota.next(due, now) {
                    due = next;
                    left += 1;
                }
                left
            };
            let before = left(due, NOW + pause);
            let after = quota.give_back(quota.next(due, NOW).unwrap());
            prop_assert_eq!(left(after, NOW + pause), before);
        }
    }
}
