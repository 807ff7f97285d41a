//! What concurrent code is made of: locks, counters, tasks and time limits.
//!
//! With `--cfg shuttle` they are shuttle's, and `tests/model` runs the ledger
//! and the guard of its reservations through many schedules. Nothing else sets
//! that cfg.

#[cfg(not(shuttle))]
mod real {
    pub(crate) use std::sync::atomic::{AtomicUsize, Ordering};
    pub(crate) use std::sync::{Mutex, MutexGuard, PoisonError};

    pub(crate) use tokio::runtime::Handle;
    pub(crate) use tokio::spawn;
    pub(crate) use tokio::time::timeout;
}

#[cfg(shuttle)]
mod model {
    use std::convert::Infallible;
    use std::future::{Future, poll_fn};
    use std::pin::pin;
    use std::task::Poll;
    use std::time::Duration;

    use shuttle::rand::{Rng, thread_rng};

    pub(crate) use shuttle::future::spawn;
    pub(crate) use shuttle::sync::atomic::{AtomicUsize, Ordering};
    pub(crate) use shuttle::sync::{Mutex, MutexGuard, PoisonError};

    /// A model is always within its runtime.
    pub(crate) struct Handle;

    pub(crate) struct Entered;

    impl Handle {
        #[expect(clippy::unnecessary_wraps, reason = "as tokio's")]
        pub(crate) fn try_current() -> Result<Self, Infallible> {
            Ok(Self)
        }

        #[expect(clippy::unused_self, reason = "as tokio's")]
        pub(crate) fn enter(&self) -> Entered {
            Entered
        }

        #[expect(clippy::unused_self, reason = "as tokio's")]
        pub(crate) fn spawn<F>(&self, future: F)
        where
            F: Future<Output: Send> + Send + 'static,
        {
            drop(spawn(future));
        }
    }

    /// A model has no time. A limit of a minute or more is never reached; a
    /// shorter one now and then, at any moment.
    pub(crate) async fn timeout<F: Future>(limit: Duration, future: F) -> Result<F::Output, &'static str> {
        let mut future = pin!(future);
        let is_reached = limit < Duration::from_secs(60) && thread_rng().gen_bool(0.25);
        poll_fn(|cx| match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Ok(output)),
            Poll::Pending if is_reached => {
                if thread_rng().gen_bool(0.25) {
                    return Poll::Ready(Err("time limit reached"));
                }
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Poll::Pending => Poll::Pending,
        })
        .await
    }
}

#[cfg(shuttle)]
pub(crate) use model::*;
#[cfg(not(shuttle))]
pub(crate) use real::*;
