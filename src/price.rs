//! What a request costs.

use std::fmt;
use std::num::NonZeroU64;

use crate::pricer::PriceError;

/// The price of an offer: nothing at all, or an amount.
///
/// Amounts are integers of the smallest unit. `Price::sat(0)` does not exist:
/// what costs nothing says [`Price::Free`].
///
/// ```
/// use l402::Price;
/// const PRICE: Price = Price::sat(21);
/// assert_eq!(PRICE, Price::msat(21_000));
/// ```
///
/// ```compile_fail
/// # use l402::Price;
/// const NOTHING: Price = Price::sat(0);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Price {
    /// Costs nothing: the request is admitted without a payment.
    Free,
    /// Costs this much.
    Amount(Amount),
}

/// A non-zero amount of money in its smallest unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Amount {
    value: NonZeroU64,
    unit: Unit,
}

/// The unit of an [`Amount`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unit {
    /// Thousandths of a satoshi.
    Msat,
}

/// All the bitcoin there will be, in msat. No amount is larger.
const MAX_MSAT: u64 = 21_000_000 * 100_000_000 * 1_000;

impl Price {
    /// A price in satoshi, known when the program is written.
    ///
    /// # Panics
    /// On zero and beyond 21 million bitcoin; in a `const`, that does not compile.
    pub const fn sat(sat: u64) -> Self {
        assert!(sat <= MAX_MSAT / 1000, "there are at most 21 million bitcoin");
        Self::msat(sat * 1000)
    }

    /// A price in millisatoshi, known when the program is written.
    ///
    /// # Panics
    /// On zero and beyond 21 million bitcoin; in a `const`, that does not compile.
    pub const fn msat(msat: u64) -> Self {
        match Self::checked_msat(msat) {
            Some(price) => price,
            None => panic!("a price is 1 msat to 21 million bitcoin; what costs nothing is `Price::Free`"),
        }
    }

    /// A price in millisatoshi, computed while the program runs.
    ///
    /// # Errors
    /// Zero and more than 21 million bitcoin. In a pricing closure `?` turns
    /// this into a 500: never free, never a guess.
    pub fn try_msat(msat: u64) -> Result<Self, PriceOutOfRange> {
        Self::checked_msat(msat).ok_or(PriceOutOfRange)
    }

    const fn checked_msat(msat: u64) -> Option<Self> {
        if msat > MAX_MSAT {
            return None;
        }
        match NonZeroU64::new(msat) {
            Some(value) => Some(Self::Amount(Amount { value, unit: Unit::Msat })),
            None => None,
        }
    }

    /// Whether this price is covered by a token sold for up to `paid`: at most
    /// as high, and in the same unit.
    pub(crate) fn is_within(self, paid: Amount) -> bool {
        match self {
            Self::Free => true,
            Self::Amount(amount) => amount.unit == paid.unit && amount.value <= paid.value,
        }
    }
}

/// The number is no price: zero, or more than there is bitcoin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a price is 1 msat to 21 million bitcoin")]
pub struct PriceOutOfRange;

impl From<PriceOutOfRange> for PriceError {
    fn from(error: PriceOutOfRange) -> Self {
        Self::failed(error)
    }
}

impl Amount {
    /// All the bitcoin there will be.
    pub(crate) const MOST: Self = match NonZeroU64::new(MAX_MSAT) {
        Some(value) => Self { value, unit: Unit::Msat },
        None => panic!("not zero"),
    };

    /// How many of its unit.
    pub fn value(self) -> u64 {
        self.value.get()
    }

    /// What it is counted in.
    pub fn unit(self) -> Unit {
        self.unit
    }

    pub(crate) fn msat(self) -> u64 {
        match self.unit {
            Unit::Msat => self.value.get(),
        }
    }

    /// Reads `<integer><unit>`, as [`Display`](fmt::Display) writes it.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let value = NonZeroU64::new(crate::caveat::digits(text.strip_suffix("msat")?)?)?;
        Some(Self { value, unit: Unit::Msat })
    }
}

/// `<integer><unit>`, as in `21000msat`.
impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.unit {
            Unit::Msat => write!(f, "{}msat", self.value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_read_back_as_written_and_nothing_else_is_read() {
        let Price::Amount(amount) = Price::sat(21) else { panic!("not free") };
        assert_eq!(Amount::parse(&amount.to_string()), Some(amount));
        for text in [
            "",
            "21000",
            "msat",
            "0msat",
            "-1msat",
            "+1msat",
            "1 msat",
            "1.5msat",
            "1e3msat",
            "21sat",
            "21usd",
            "99999999999999999999msat",
        ] {
            assert_eq!(Amount::parse(text), None, "{text}");
        }
    }

    #[test]
    fn zero_and_more_than_all_bitcoin_are_no_price() {
        assert_eq!(Price::try_msat(0), Err(PriceOutOfRange));
        assert_eq!(Price::try_msat(MAX_MSAT + 1), Err(PriceOutOfRange));
        assert_eq!(Price::try_msat(MAX_MSAT), Ok(Price::sat(MAX_MSAT / 1000)));
    }

    #[test]
    fn a_higher_price_is_not_within_a_lower_payment() {
        let paid = Amount::parse("1000msat").unwrap();
        assert!(Price::sat(1).is_within(paid));
        assert!(Price::Free.is_within(paid));
        assert!(!Price::msat(1001).is_within(paid));
    }
}
