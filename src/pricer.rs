//! Where the price of a request comes from.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use http::StatusCode;
use http::request::Parts;

use crate::answer::Refused;
use crate::price::Price;
use crate::refusal::Refusal;

type PriceFn = Arc<dyn Fn(&Parts) -> Result<Price, PriceError> + Send + Sync>;

/// A price for all requests, or a closure that computes it from the head of
/// each: method, URI, headers and extensions, without the credential.
#[derive(Clone)]
pub(crate) enum Pricing {
    Fixed(Price),
    Computed(PriceFn),
}

impl Pricing {
    pub(crate) fn price(&self, head: &Parts) -> Result<Price, Refused> {
        match self {
            Self::Fixed(price) => Ok(*price),
            Self::Computed(compute) => compute(head).map_err(Refused::from),
        }
    }

    /// The price in msat, where it is the same for every request.
    pub(crate) fn fixed_msat(&self) -> Option<u64> {
        match self {
            Self::Fixed(Price::Amount(amount)) => Some(amount.msat()),
            Self::Fixed(Price::Free) => Some(0),
            Self::Computed(_) => None,
        }
    }

    /// Whether the price depends on the request.
    pub(crate) fn is_computed(&self) -> bool {
        matches!(self, Self::Computed(_))
    }
}

/// Closures are equal where they are the same one.
impl PartialEq for Pricing {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Fixed(a), Self::Fixed(b)) => a == b,
            (Self::Computed(a), Self::Computed(b)) => Arc::ptr_eq(a, b),
            _ => false,
        }
    }
}

impl fmt::Debug for Pricing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(price) => price.fmt(f),
            Self::Computed(_) => f.write_str("by the request"),
        }
    }
}

/// Why a request has no price. It is refused: never free, never a guess.
pub struct PriceError {
    answer: Answer,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

#[derive(Clone, Copy, Debug)]
enum Answer {
    Reject(StatusCode),
    Unavailable,
    Failed,
}

impl PriceError {
    /// The request names something that is not for sale: answered with this
    /// status of the 4xx class, and no invoice. Any other status becomes 400.
    pub fn reject(status: StatusCode) -> Self {
        let status = if status.is_client_error() && status != StatusCode::PAYMENT_REQUIRED {
            status
        } else {
            StatusCode::BAD_REQUEST
        };
        Self { answer: Answer::Reject(status), source: None }
    }

    /// What the price depends on cannot be asked just now: answered 503 with
    /// Retry-After.
    pub fn unavailable(cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self { answer: Answer::Unavailable, source: Some(cause.into()) }
    }

    /// The price could not be computed: answered 500.
    pub fn failed(cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self { answer: Answer::Failed, source: Some(cause.into()) }
    }
}

impl From<PriceError> for Refused {
    fn from(error: PriceError) -> Self {
        match error.answer {
            Answer::Reject(status) => Refusal::NotForSale(status).into(),
            Answer::Unavailable => Self::because(Refusal::PriceUnavailable, error),
            Answer::Failed => Self::because(Refusal::PriceFailed, error),
        }
    }
}

impl fmt::Display for PriceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.answer {
            Answer::Reject(status) => write!(f, "not for sale: {status}"),
            Answer::Unavailable => f.write_str("price is unavailable"),
            Answer::Failed => f.write_str("price could not be computed"),
        }
    }
}

impl fmt::Debug for PriceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PriceError").field("answer", &self.answer).field("source", &self.source).finish()
    }
}

impl StdError for PriceError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_ref().map(|source| &**source as &(dyn StdError + 'static))
    }
}
