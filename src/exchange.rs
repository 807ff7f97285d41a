//! What a price in another currency is in bitcoin. Asked when something is
//! sold, and never for a request that was paid for.

use std::collections::HashMap;
use std::error::Error as StdError;
use std::fmt;
use std::future::poll_fn;
use std::num::NonZeroU64;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use async_trait::async_trait;

use crate::answer::Refused;
use crate::clock::{Clock, unix};
use crate::price::{Amount, Currency, PriceOutOfRange, Unit};
use crate::pricer::PriceError;
use crate::sync::timeout;

/// How long a source may take.
const TIME_LIMIT: Duration = Duration::from_secs(5);
/// How long a source that failed is left alone, in seconds.
const FAILED_FOR: u64 = 5;

/// Says what one bitcoin costs. A closure is one too:
/// `|currency| async move { .. }`.
///
/// The crate keeps what it said: see
/// [`IssuerBuilder::with_rates`](crate::IssuerBuilder::with_rates). It takes 5
/// seconds at most.
#[async_trait]
pub trait RateSource: Send + Sync {
    /// The rate of this currency now.
    ///
    /// # Errors
    /// It is not known. The cause is shown to the operator alone.
    async fn rate(&self, currency: Currency) -> Result<ExchangeRate, Box<dyn StdError + Send + Sync>>;
}

#[async_trait]
impl<F, Fut> RateSource for F
where
    F: Fn(Currency) -> Fut + Send + Sync,
    Fut: Future<Output = Result<ExchangeRate, Box<dyn StdError + Send + Sync>>> + Send,
{
    async fn rate(&self, currency: Currency) -> Result<ExchangeRate, Box<dyn StdError + Send + Sync>> {
        self(currency).await
    }
}

/// What one bitcoin costs, in minor units of a currency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExchangeRate(NonZeroU64);

impl ExchangeRate {
    /// One bitcoin costs this many minor units: 6,543,210 where it costs
    /// 65,432.10 dollars.
    ///
    /// # Errors
    /// Zero.
    pub fn per_bitcoin(minor_units: u64) -> Result<Self, PriceOutOfRange> {
        NonZeroU64::new(minor_units).map(Self).ok_or(PriceOutOfRange)
    }

    /// This many minor units in msat, rounded up.
    fn msat(self, minor_units: u64) -> Option<u64> {
        const MSAT_PER_BITCOIN: u128 = 100_000_000_000;
        let msat = (u128::from(minor_units) * MSAT_PER_BITCOIN).div_ceil(u128::from(self.0.get()));
        u64::try_from(msat).ok()
    }
}

/// A source, and what it said last of each currency.
pub(crate) struct Exchange {
    source: Arc<dyn RateSource>,
    /// In seconds.
    max_age: u64,
    known: Mutex<HashMap<Currency, Arc<Known>>>,
}

#[derive(Debug, Default)]
struct Known {
    /// The last rate, and when it was asked for.
    rate: Mutex<Option<(ExchangeRate, u64)>>,
    /// When the source failed last. Whoever asks it holds the lock.
    failed_at: tokio::sync::Mutex<Option<u64>>,
}

impl Known {
    fn rate_within(&self, age: u64, clock: &dyn Clock) -> Option<ExchangeRate> {
        let now = unix(clock.now());
        let rate = *self.rate.lock().unwrap_or_else(PoisonError::into_inner);
        rate.filter(|(_, at)| now.saturating_sub(*at) <= age).map(|(rate, _)| rate)
    }
}

impl Exchange {
    pub(crate) fn new(source: Arc<dyn RateSource>, max_age: Duration) -> Self {
        Self { source, max_age: max_age.as_secs().max(1), known: Mutex::default() }
    }

    /// The price in msat.
    async fn msat(&self, minor_units: u64, currency: Currency, clock: &dyn Clock) -> Result<u64, PriceError> {
        let rate = self.rate(currency, clock).await?;
        let msat = rate.msat(minor_units).ok_or(PriceOutOfRange)?;
        Ok(Amount::from_msat(msat)?.value())
    }

    /// A rate that is not too old. The source is asked again at half of that
    /// age, by one request at a time; the others take what is known meanwhile.
    async fn rate(&self, currency: Currency, clock: &dyn Clock) -> Result<ExchangeRate, PriceError> {
        let known =
            self.known.lock().unwrap_or_else(PoisonError::into_inner).entry(currency).or_default().clone();
        if let Some(rate) = known.rate_within(self.max_age / 2, clock) {
            return Ok(rate);
        }
        let mut failed_at = match (known.failed_at.try_lock(), known.rate_within(self.max_age, clock)) {
            (Ok(failed_at), _) => failed_at,
            (Err(_), Some(rate)) => return Ok(rate),
            (Err(_), None) => timeout(TIME_LIMIT, known.failed_at.lock())
                .await
                .map_err(|_| PriceError::unavailable("rate source did not answer in time"))?,
        };
        // Another one may have asked meanwhile.
        if let Some(rate) = known.rate_within(self.max_age / 2, clock) {
            return Ok(rate);
        }
        let now = unix(clock.now());
        let mut why = None;
        if failed_at.is_none_or(|at| now >= at.saturating_add(FAILED_FOR)) {
            match self.ask(currency).await {
                Ok(rate) => {
                    *known.rate.lock().unwrap_or_else(PoisonError::into_inner) = Some((rate, now));
                    *failed_at = None;
                    return Ok(rate);
                }
                Err(error) => {
                    *failed_at = Some(unix(clock.now()));
                    why = Some(error);
                }
            }
        }
        known
            .rate_within(self.max_age, clock)
            .ok_or_else(|| why.unwrap_or_else(|| PriceError::unavailable("rate source failed a moment ago")))
    }

    async fn ask(&self, currency: Currency) -> Result<ExchangeRate, PriceError> {
        let panicked = || PriceError::unavailable("rate source panicked");
        let mut asked =
            catch_unwind(AssertUnwindSafe(|| self.source.rate(currency))).map_err(|_| panicked())?;
        let caught = poll_fn(|cx| {
            catch_unwind(AssertUnwindSafe(|| asked.as_mut().poll(cx)))
                .map_or_else(|_| Poll::Ready(Err(panicked())), |poll| poll.map_err(PriceError::unavailable))
        });
        let rate = timeout(TIME_LIMIT, caught).await;
        rate.unwrap_or_else(|_| Err(PriceError::unavailable("rate source did not answer in time")))
    }
}

/// What a price is in msat.
pub(crate) async fn msat(
    exchange: Option<&Exchange>,
    price: Amount,
    clock: &dyn Clock,
) -> Result<u64, Refused> {
    match (price.unit(), exchange) {
        (Unit::Msat, _) => Ok(price.value()),
        (Unit::Minor(currency), Some(exchange)) => Ok(exchange.msat(price.value(), currency, clock).await?),
        (Unit::Minor(currency), None) => {
            let why = format!("price in {currency}, and the issuer has no rates: set `with_rates`");
            Err(PriceError::failed(why).into())
        }
    }
}

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchange").field("max_age", &self.max_age).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_price_is_rounded_up_to_the_msat() {
        let rate = |minor| ExchangeRate::per_bitcoin(minor).unwrap();
        for (rate, minor, msat) in [
            (rate(10_000_000), 1, 10_000),
            (rate(6_543_210), 50, 764_151),
            (rate(3), 1, 33_333_333_334),
            (rate(u64::MAX), 1, 1),
            (rate(1), 1, 100_000_000_000),
        ] {
            assert_eq!(rate.msat(minor), Some(msat));
        }
        assert_eq!(rate(1).msat(u64::MAX), None, "more than a number holds");
        assert!(ExchangeRate::per_bitcoin(0).is_err());
    }
}
