//! The moment at which a token is no longer good, awaited.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::SystemTime;

use tokio::time::{Instant, Sleep, sleep_until};

use crate::clock::{Clock, MINUTE};

/// A moment of the issuer's clock. The runtime's timer wakes whoever waits for
/// it, once a minute at least, and the clock says whether it has come: so a
/// clock that jumps, or a machine that slept, is noticed within a minute.
pub(crate) struct Deadline {
    clock: Arc<dyn Clock>,
    at: SystemTime,
    /// Made by the first poll that has to wait.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Deadline {
    pub(crate) fn new(clock: Arc<dyn Clock>, at: SystemTime) -> Self {
        Self { clock, at, timer: None }
    }

    pub(crate) fn is_past(&self) -> bool {
        self.clock.now() >= self.at
    }

    /// Ready once the moment has come. Needs tokio's timers where it has not.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while let Ok(left) = self.at.duration_since(self.clock.now()) {
            if left.is_zero() {
                break;
            }
            let wake_at = Instant::now() + left.min(MINUTE);
            let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(wake_at)));
            ready!(timer.as_mut().poll(cx));
            timer.as_mut().reset(wake_at);
        }
        Poll::Ready(())
    }
}

impl fmt::Debug for Deadline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deadline").field("at", &self.at).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    /// Runs with tokio's clock, and can be set forward or back beside it.
    #[derive(Debug)]
    struct TokioClock {
        begun: Instant,
        ahead: AtomicU64,
    }

    impl TokioClock {
        fn new() -> Arc<Self> {
            Arc::new(Self { begun: Instant::now(), ahead: AtomicU64::new(1_900_000_000) })
        }
    }

    impl Clock for TokioClock {
        fn now(&self) -> SystemTime {
            UNIX_EPOCH + Duration::from_secs(self.ahead.load(Ordering::SeqCst)) + self.begun.elapsed()
        }
    }

    /// How long tokio's clock runs until the deadline, which is `seconds` away.
    async fn waits(clock: &Arc<TokioClock>, seconds: u64, meanwhile: impl Future<Output = ()>) -> Duration {
        let mut deadline = Deadline::new(clock.clone(), clock.now() + Duration::from_secs(seconds));
        let begun = Instant::now();
        tokio::join!(poll_fn(|cx| deadline.poll(cx)), meanwhile);
        assert!(deadline.is_past());
        begun.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn it_comes_at_its_moment() {
        let clock = TokioClock::new();
        for seconds in [0, 1, 59, 60, 61, 3600] {
            let waited = waits(&clock, seconds, async {}).await;
            let late = waited.checked_sub(Duration::from_secs(seconds)).expect("never early");
            assert!(late < Duration::from_millis(100), "{seconds}: {waited:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_jumps_forward_is_noticed_within_a_minute() {
        let clock = TokioClock::new();
        let jump = async {
            tokio::time::sleep(Duration::from_secs(90)).await;
            clock.ahead.fetch_add(7200, Ordering::SeqCst);
        };
        let waited = waits(&clock, 3600, jump).await;
        assert!((90..=121).contains(&waited.as_secs()), "{waited:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_goes_back_is_waited_for() {
        let clock = TokioClock::new();
        let back = async {
            tokio::time::sleep(Duration::from_secs(5)).await;
            clock.ahead.fetch_sub(600, Ordering::SeqCst);
        };
        let waited = waits(&clock, 10, back).await;
        assert!((610..=611).contains(&waited.as_secs()), "{waited:?}");
    }
}
