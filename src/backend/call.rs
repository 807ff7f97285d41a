//! One call of a backend: in bounded time, and a panic is its failure.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use super::{BackendError, BackendErrorKind};
use crate::sync::timeout;

type Called<'a, T> = Pin<Box<dyn Future<Output = Result<T, BackendError>> + Send + 'a>>;

pub(crate) async fn call<'a, T>(
    time_limit: Duration,
    begin: impl FnOnce() -> Called<'a, T>,
) -> Result<T, BackendError> {
    let panicked = || BackendError::new(BackendErrorKind::Backend, "backend panicked");
    let mut call = catch_unwind(AssertUnwindSafe(begin)).map_err(|_| panicked())?;
    let caught = poll_fn(|cx| {
        catch_unwind(AssertUnwindSafe(|| call.as_mut().poll(cx)))
            .unwrap_or_else(|_| Poll::Ready(Err(panicked())))
    });
    timeout(time_limit, caught).await.unwrap_or_else(|_| Err(BackendError::timeout()))
}
