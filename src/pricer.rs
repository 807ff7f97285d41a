//! Where the price of a request comes from.

use std::error::Error as StdError;
use std::fmt;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use async_trait::async_trait;
use http::StatusCode;
use http::request::Parts;

use crate::answer::Refused;
use crate::price::Price;
use crate::refusal::Refusal;
use crate::sync::timeout;

/// How long a pricer may take.
const TIME_LIMIT: Duration = Duration::from_secs(5);

/// Prices requests by what it has to ask for: a database, another service.
///
/// What it does not know is an error, and never free. It is asked with every
/// request that is sold to, and with every request that presents a token sold
/// at its price, since that may cost more by now. An answer takes 5 seconds at
/// most; beyond them, and where it panics, the request is refused.
///
/// Who has paid nothing is under the limits of challenges: where a client
/// ([`with_client_challenges`](crate::IssuerBuilder::with_client_challenges)) or
/// all of them
/// ([`with_server_challenges`](crate::IssuerBuilder::with_server_challenges))
/// have had enough, the answer is 429 and the pricer is not asked, also where it
/// would have said that the request is free. What is free does not count, and
/// what is not for sale ([`PriceError::reject`]) counts as a challenge.
///
/// ```
/// use async_trait::async_trait;
/// use http::{StatusCode, request::Parts};
/// use l402::{Access, Offer, Price, PriceError, Pricer};
///
/// # struct Db;
/// # impl Db { async fn pages(&self, _: &str) -> Result<Option<u64>, std::io::Error> { Ok(None) } }
/// struct PerPage {
///     db: Db,
/// }
///
/// #[async_trait]
/// impl Pricer for PerPage {
///     async fn price(&self, head: &Parts) -> Result<Price, PriceError> {
///         let pages = self.db.pages(head.uri.path()).await.map_err(PriceError::unavailable)?;
///         let pages = pages.ok_or(PriceError::reject(StatusCode::NOT_FOUND))?;
///         Ok(Price::try_msat(pages * 500)?)
///     }
/// }
///
/// let offer = Offer::priced_by(PerPage { db: Db }, Access::once());
/// ```
#[async_trait]
pub trait Pricer: Send + Sync {
    /// What the request with this head (without its credential) costs.
    ///
    /// # Errors
    /// Why it has no price.
    async fn price(&self, head: &Parts) -> Result<Price, PriceError>;
}

type PriceFn = Arc<dyn Fn(&Parts) -> Result<Price, PriceError> + Send + Sync>;

/// A price for all requests, or where it comes from: a closure or a pricer that
/// sees the head of each, without the credential.
#[derive(Clone)]
pub(crate) enum Pricing {
    Fixed(Price),
    Computed(PriceFn),
    Asked(Arc<dyn Pricer>),
}

impl Pricing {
    /// The price of a request; `None` where it has to be [asked](Self::ask).
    pub(crate) fn price(&self, head: &Parts) -> Option<Result<Price, Refused>> {
        match self {
            Self::Fixed(price) => Some(Ok(*price)),
            Self::Computed(compute) => {
                let price = catch_unwind(AssertUnwindSafe(|| compute(head)));
                Some(price.unwrap_or_else(|_| Err(PriceError::panicked())).map_err(Refused::from))
            }
            Self::Asked(_) => None,
        }
    }

    /// The price of a request, whoever has to be asked.
    pub(crate) async fn ask(&self, head: &Parts) -> Result<Price, Refused> {
        let Self::Asked(pricer) = self else {
            return self.price(head).expect("all others know their price");
        };
        let Ok(mut asked) = catch_unwind(AssertUnwindSafe(|| pricer.price(head))) else {
            return Err(PriceError::panicked().into());
        };
        let caught = poll_fn(|cx| {
            catch_unwind(AssertUnwindSafe(|| asked.as_mut().poll(cx)))
                .unwrap_or_else(|_| Poll::Ready(Err(PriceError::panicked())))
        });
        let price = timeout(TIME_LIMIT, caught).await;
        price
            .unwrap_or_else(|_| Err(PriceError::unavailable("pricer did not answer in time")))
            .map_err(Refused::from)
    }

    /// The price, where it is the same for every request.
    pub(crate) fn fixed(&self) -> Option<Price> {
        match self {
            Self::Fixed(price) => Some(*price),
            Self::Computed(_) | Self::Asked(_) => None,
        }
    }

    /// Whether the price depends on the request.
    pub(crate) fn is_computed(&self) -> bool {
        self.fixed().is_none()
    }
}

/// The pricer of a closure.
pub(crate) struct AsyncFn<F>(pub(crate) F);

#[async_trait]
impl<F, Fut> Pricer for AsyncFn<F>
where
    F: Fn(&Parts) -> Fut + Send + Sync,
    Fut: Future<Output = Result<Price, PriceError>> + Send,
{
    async fn price(&self, head: &Parts) -> Result<Price, PriceError> {
        self.0(head).await
    }
}

/// Closures are equal where they are the same one.
impl PartialEq for Pricing {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Fixed(a), Self::Fixed(b)) => a == b,
            (Self::Computed(a), Self::Computed(b)) => Arc::ptr_eq(a, b),
            (Self::Asked(a), Self::Asked(b)) => Arc::ptr_eq(a, b),
            _ => false,
        }
    }
}

impl fmt::Debug for Pricing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(price) => price.fmt(f),
            Self::Computed(_) | Self::Asked(_) => f.write_str("by the request"),
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
    /// Retry-After. The cause is for the operator's log; it must hold no secret.
    pub fn unavailable(cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self { answer: Answer::Unavailable, source: Some(cause.into()) }
    }

    fn panicked() -> Self {
        Self::failed("pricer panicked")
    }

    /// The price could not be computed: answered 500. The cause is for the
    /// operator's log; it must hold no secret.
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
