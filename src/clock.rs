//! Where time comes from.

use std::fmt::Debug;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// One minute.
pub const MINUTE: Duration = Duration::from_secs(60);
/// One hour.
pub const HOUR: Duration = Duration::from_secs(60 * 60);
/// One day of 24 hours.
pub const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Tells the time: the only way the crate learns it.
pub trait Clock: Debug + Send + Sync {
    /// The present moment. A clock that goes back within a process makes
    /// expired tokens valid again.
    fn now(&self) -> SystemTime;
}

/// The machine's clock, held so that it never goes back within the process: a
/// jump forward stays until real time has caught up, or the process restarts.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

/// The latest moment that was given out, in milliseconds since the epoch.
static LATEST: AtomicU64 = AtomicU64::new(0);

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods)] // the one place that reads it
    fn now(&self) -> SystemTime {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX);
        let latest = LATEST.load(Ordering::Relaxed);
        let now = if now > latest { LATEST.fetch_max(now, Ordering::Relaxed).max(now) } else { latest };
        UNIX_EPOCH + Duration::from_millis(now)
    }
}

/// A clock that stands still until it is told to move, for tests.
#[cfg(feature = "test-util")]
#[cfg_attr(docsrs, doc(cfg(feature = "test-util")))]
#[derive(Clone, Debug)]
pub struct FixedClock(std::sync::Arc<AtomicU64>);

#[cfg(feature = "test-util")]
impl FixedClock {
    /// Stands at this moment, in unix seconds. Clones show the same time.
    pub fn at(unix_seconds: u64) -> Self {
        Self(std::sync::Arc::new(AtomicU64::new(unix_seconds * 1000)))
    }

    /// Moves on, with all its clones.
    pub fn advance(&self, by: Duration) {
        let millis = u64::try_from(by.as_millis()).expect("a duration within the age of the universe");
        self.0.fetch_add(millis, Ordering::SeqCst);
    }

    /// Goes to this moment, which may lie in the past.
    pub fn set(&self, unix_seconds: u64) {
        self.0.store(unix_seconds * 1000, Ordering::SeqCst);
    }
}

#[cfg(feature = "test-util")]
impl Clock for FixedClock {
    fn now(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.0.load(Ordering::SeqCst))
    }
}

/// Whole seconds since the epoch, rounded down.
pub(crate) fn unix(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// A duration in words: `30 days`, `1 hour`.
#[cfg(any(feature = "offers", feature = "page"))]
pub(crate) fn duration(seconds: u64) -> String {
    let units = [(86_400, "day"), (3_600, "hour"), (60, "minute"), (1, "second")];
    let (unit, name) =
        units.into_iter().find(|(unit, _)| seconds % unit == 0).expect("all are whole seconds");
    match seconds / unit {
        1 => format!("1 {name}"),
        n => format!("{n} {name}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_clock_does_not_go_back() {
        let mut last = SystemClock.now();
        for _ in 0..1000 {
            let now = SystemClock.now();
            assert!(now >= last);
            last = now;
        }
        LATEST.fetch_max(
            u64::try_from(last.duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap() + 50,
            Ordering::Relaxed,
        );
        assert!(SystemClock.now() >= last + Duration::from_millis(50));
    }

    #[cfg(any(feature = "offers", feature = "page"))]
    #[test]
    fn durations_are_told_in_the_largest_whole_unit() {
        for (seconds, text) in [
            (1, "1 second"),
            (90, "90 seconds"),
            (60, "1 minute"),
            (5400, "90 minutes"),
            (2_592_000, "30 days"),
        ] {
            assert_eq!(duration(seconds), text);
        }
    }
}
