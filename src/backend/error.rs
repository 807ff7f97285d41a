//! Why a backend failed.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

#[cfg(any(feature = "_http", feature = "nwc"))]
use http::{HeaderMap, header::RETRY_AFTER};

/// Why a backend made no invoice, or did not say what became of one.
pub struct BackendError {
    kind: BackendErrorKind,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// The kinds of [`BackendError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BackendErrorKind {
    /// Not reached: nothing was sent.
    Connect,
    /// No answer in time: it may have happened.
    Timeout,
    /// The credentials of the backend are wrong or lack a permission.
    Auth,
    /// Asked too often.
    RateLimited {
        /// When to ask again, if it said so.
        retry_after: Option<Duration>,
    },
    /// The invoice that was asked for is not one it makes.
    Rejected,
    /// The backend cannot do what it was asked.
    Unsupported,
    /// The answer is not what it should be.
    InvalidResponse,
    /// The backend failed.
    Backend,
}

#[cfg(any(feature = "_http", feature = "nwc"))]
impl BackendErrorKind {
    /// Of an answer 429: Retry-After in its form of seconds, which APIs use; an
    /// hour at most.
    pub(super) fn rate_limited(headers: &HeaderMap) -> Self {
        let text = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let seconds = text.and_then(|text| text.trim().parse::<u64>().ok());
        Self::RateLimited { retry_after: seconds.map(|seconds| Duration::from_secs(seconds.min(3_600))) }
    }
}

impl BackendError {
    /// An error of this kind. The cause is shown to the operator alone, in a
    /// log; it must hold no secret.
    pub fn new(kind: BackendErrorKind, cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self { kind, source: Some(cause.into()) }
    }

    /// The backend was not reached.
    pub fn connect(cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::new(BackendErrorKind::Connect, cause)
    }

    pub(crate) fn timeout() -> Self {
        Self { kind: BackendErrorKind::Timeout, source: None }
    }

    pub(super) fn unsupported() -> Self {
        Self { kind: BackendErrorKind::Unsupported, source: None }
    }

    /// Whether what was asked may have been done all the same.
    #[cfg(any(feature = "cln", feature = "phoenixd"))]
    pub(super) fn may_have_happened(&self) -> bool {
        matches!(self.kind, BackendErrorKind::Timeout | BackendErrorKind::InvalidResponse)
    }

    /// What kind of failure it is.
    pub fn kind(&self) -> BackendErrorKind {
        self.kind
    }
}

impl fmt::Display for BackendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            BackendErrorKind::Connect => "backend was not reached",
            BackendErrorKind::Timeout => "backend did not answer in time",
            BackendErrorKind::Auth => "backend refused our credentials",
            BackendErrorKind::RateLimited { .. } => "backend limits our rate",
            BackendErrorKind::Rejected => "backend does not make such an invoice",
            BackendErrorKind::Unsupported => "backend cannot do this",
            BackendErrorKind::InvalidResponse => "backend gave an invalid answer",
            BackendErrorKind::Backend => "backend failed",
        })
    }
}

impl fmt::Debug for BackendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BackendError").field("kind", &self.kind).field("source", &self.source).finish()
    }
}

impl StdError for BackendError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_ref().map(|source| &**source as &(dyn StdError + 'static))
    }
}
