//! Calls of a backend: in bounded time, a panic is its failure, and an answer
//! that was lost is looked for.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

#[cfg(any(feature = "cln", feature = "phoenixd"))]
use super::Invoice;
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

/// How long the node may take to make an invoice, and to find one that it may
/// have made: together they stay below the 10 s that a gate waits.
#[cfg(any(feature = "cln", feature = "phoenixd"))]
pub(super) const CREATE_TIME_LIMIT: Duration = Duration::from_secs(6);
#[cfg(any(feature = "cln", feature = "phoenixd"))]
pub(super) const FIND_TIME_LIMIT: Duration = Duration::from_secs(3);

/// Makes an invoice. Where it may have been made though the answer was lost, it
/// is looked for once by the key that it was asked for with.
#[cfg(any(feature = "cln", feature = "phoenixd"))]
pub(super) async fn create_or_find(
    create: impl Future<Output = Result<Invoice, BackendError>>,
    find: impl Future<Output = Result<Option<Invoice>, BackendError>>,
) -> Result<Invoice, BackendError> {
    let error = match create.await {
        Ok(invoice) => return Ok(invoice),
        Err(error) => error,
    };
    if error.may_have_happened() {
        if let Ok(Some(invoice)) = find.await {
            return Ok(invoice);
        }
    }
    Err(error)
}
