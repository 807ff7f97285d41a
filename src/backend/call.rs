//! One call of a backend: in bounded time, and a panic is its failure.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use super::{BackendError, BackendErrorKind};
use crate::sync::timeout;

pub(crate) async fn call<T>(
    time_limit: Duration,
    mut call: Pin<Box<dyn Future<Output = Result<T, BackendError>> + Send + '_>>,
) -> Result<T, BackendError> {
    let caught = poll_fn(|cx| {
        catch_unwind(AssertUnwindSafe(|| call.as_mut().poll(cx))).unwrap_or_else(|_| {
            Poll::Ready(Err(BackendError::new(BackendErrorKind::Backend, "backend panicked")))
        })
    });
    timeout(time_limit, caught).await.unwrap_or_else(|_| Err(BackendError::timeout()))
}
