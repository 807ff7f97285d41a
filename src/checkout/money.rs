//! Amounts, durations and moments, as the offers body writes them.

use serde_json::value::RawValue;

use crate::price::{Amount, Unit, exponent};

/// An amount in the smallest unit of its currency, and the currency's code. What
/// is priced in msat is told in satoshi, rounded up.
pub(super) fn minor(amount: Amount) -> (u64, String) {
    match amount.unit() {
        Unit::Msat => (amount.value().div_ceil(1000), "BTC".to_owned()),
        Unit::Minor(currency) => (amount.value(), currency.to_string()),
    }
}

/// The same amount in major units, as a JSON number that no float has rounded.
pub(super) fn major((minor, currency): (u64, &str)) -> Box<RawValue> {
    let text = match exponent(currency) {
        0 => minor.to_string(),
        exponent => {
            let scale = 10_u64.pow(u32::try_from(exponent).expect("a digit"));
            format!("{}.{:0exponent$}", minor / scale, minor % scale)
        }
    };
    RawValue::from_string(text).expect("digits and a point are a number")
}

/// A unix second in RFC 3339, by the days of the proleptic Gregorian calendar.
pub(super) fn rfc3339(unix: u64) -> String {
    let (days, second) = (unix / 86_400, unix % 86_400);
    // Years that begin in March end with the leap day; 400 of them have 146,097 days.
    let day = days + 719_468;
    let (era, day) = (day / 146_097, day % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let of_month = of_year - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = era * 400 + year + next;
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{of_month:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::price::{Currency, Price};

    #[test]
    fn moments_are_those_of_the_calendar() {
        for (unix, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_709_164_800, "2024-02-29T00:00:00Z"),
            (1_710_948_600, "2024-03-20T15:30:00Z"),
            (1_900_000_000, "2030-03-17T17:46:40Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(rfc3339(unix), text);
        }
    }

    #[test]
    fn major_units_have_the_digits_of_their_currency() {
        for (minor, currency, text) in [
            (500, "USD", "5.00"),
            (5, "EUR", "0.05"),
            (1500, "JPY", "1500"),
            (1, "KWD", "0.001"),
            (21, "BTC", "0.00000021"),
            (2_100_000_000_000_000, "BTC", "21000000.00000000"),
            (u64::MAX, "USD", "184467440737095516.15"),
        ] {
            assert_eq!(major((minor, currency)).get(), text);
        }
    }

    #[test]
    fn parts_of_a_satoshi_are_rounded_up() {
        let amount = |price| match price {
            Price::Amount(amount) => amount,
            Price::Free => panic!("not free"),
        };
        assert_eq!(minor(amount(Price::msat(1))), (1, "BTC".into()));
        assert_eq!(minor(amount(Price::msat(21_001))), (22, "BTC".into()));
        assert_eq!(minor(amount(Price::minor(100, Currency::new("USD")))), (100, "USD".into()));
    }
}
