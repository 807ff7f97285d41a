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
    /// The smallest unit of a currency: cents of a dollar, whole yen.
    Minor(Currency),
}

/// `msat`, or the lower-case code of a currency.
impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Msat => f.write_str("msat"),
            Self::Minor(currency) => {
                currency.as_str().chars().try_for_each(|c| write!(f, "{}", c.to_ascii_lowercase()))
            }
        }
    }
}

/// A currency, by its code in ISO 4217.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Currency([u8; 3]);

impl Currency {
    /// The currency of this code: three letters in upper case.
    ///
    /// ```
    /// use l402::{Currency, Price};
    /// const USD: Currency = Currency::new("USD");
    /// const HALF_A_DOLLAR: Price = Price::minor(50, USD);
    /// ```
    ///
    /// # Panics
    /// On any other text, and on `BTC`, `XBT` and `SAT`: prices in bitcoin are
    /// in msat. In a `const`, that does not compile.
    pub const fn new(code: &str) -> Self {
        let [a, b, c] = code.as_bytes() else { panic!("a currency has a code of three letters") };
        assert!(
            a.is_ascii_uppercase() && b.is_ascii_uppercase() && c.is_ascii_uppercase(),
            "the code of a currency is in upper case"
        );
        assert!(
            !matches!([*a, *b, *c], [b'B', b'T', b'C'] | [b'X', b'B', b'T'] | [b'S', b'A', b'T']),
            "prices in bitcoin are `Price::sat` and `Price::msat`"
        );
        Self([*a, *b, *c])
    }

    /// The currency of this code in either case, as providers write it; `None`
    /// for what [`new`](Self::new) panics on.
    pub fn from_code(code: &str) -> Option<Self> {
        let currency = Self::parse(&code.to_ascii_lowercase())?;
        (!matches!(currency.as_str(), "BTC" | "XBT" | "SAT")).then_some(currency)
    }

    /// The code.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("letters")
    }

    /// Reads the lower-case code of a caveat.
    fn parse(code: &str) -> Option<Self> {
        let letters: [u8; 3] = code.as_bytes().try_into().ok()?;
        (letters.iter().all(u8::is_ascii_lowercase)).then(|| Self(letters.map(|c| c.to_ascii_uppercase())))
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How many digits of a currency stand behind the point (ISO 4217, the currencies
/// whose exponent is not 2).
#[cfg(any(feature = "offers", feature = "page"))]
pub(crate) fn exponent(currency: &str) -> usize {
    match currency {
        "BTC" => 8,
        "CLF" | "UYW" => 4,
        "BHD" | "IQD" | "JOD" | "KWD" | "LYD" | "OMR" | "TND" => 3,
        "BIF" | "CLP" | "DJF" | "GNF" | "ISK" | "JPY" | "KMF" | "KRW" | "PYG" | "RWF" | "UGX" | "UYI"
        | "VND" | "VUV" | "XAF" | "XOF" | "XPF" => 0,
        _ => 2,
    }
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

    /// A price in the smallest unit of a currency, such as cents, known when the
    /// program is written. The issuer needs
    /// [rates](crate::IssuerBuilder::with_rates) to sell at it.
    ///
    /// # Panics
    /// On zero; in a `const`, that does not compile.
    pub const fn minor(units: u64, currency: Currency) -> Self {
        match NonZeroU64::new(units) {
            Some(value) => Self::Amount(Amount { value, unit: Unit::Minor(currency) }),
            None => panic!("what costs nothing is `Price::Free`"),
        }
    }

    /// A price in the smallest unit of a currency, computed while the program
    /// runs.
    ///
    /// # Errors
    /// Zero.
    pub fn try_minor(units: u64, currency: Currency) -> Result<Self, PriceOutOfRange> {
        let value = NonZeroU64::new(units).ok_or(PriceOutOfRange)?;
        Ok(Self::Amount(Amount { value, unit: Unit::Minor(currency) }))
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
#[error("a price is not zero, and at most 21 million bitcoin")]
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

    pub(crate) fn from_msat(msat: u64) -> Result<Self, PriceOutOfRange> {
        match Price::try_msat(msat)? {
            Price::Amount(amount) => Ok(amount),
            Price::Free => Err(PriceOutOfRange),
        }
    }

    /// Reads `<integer><unit>`, as [`Display`](fmt::Display) writes it.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (number, unit) = text.split_at_checked(text.bytes().take_while(u8::is_ascii_digit).count())?;
        let unit = match unit {
            "msat" => Unit::Msat,
            code => Unit::Minor(Currency::parse(code)?),
        };
        Some(Self { value: NonZeroU64::new(crate::caveat::digits(number)?)?, unit })
    }
}

/// `<integer><unit>`, as in `21000msat` and `250usd`.
impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.value, self.unit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_read_back_as_written_and_nothing_else_is_read() {
        for (price, text) in
            [(Price::sat(21), "21000msat"), (Price::minor(250, Currency::new("USD")), "250usd")]
        {
            let Price::Amount(amount) = price else { panic!("not free") };
            assert_eq!(amount.to_string(), text);
            assert_eq!(Amount::parse(text), Some(amount));
        }
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
            "21USD",
            "21us",
            "21usdt",
            "0usd",
            "21 usd",
            "21u\u{308}s",
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
        assert!(!Price::minor(1, Currency::new("USD")).is_within(paid), "another unit");
    }
}
