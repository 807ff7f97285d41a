//! `<service>_max_price=<integer><unit>`: what a request may cost at most.

use crate::price::Amount;
use crate::refusal::Refusal;

/// Gives what the caveat says.
pub(super) fn apply(seen: &mut Option<Amount>, value: &str) -> Result<Amount, Refusal> {
    let amount = Amount::parse(value).ok_or(Refusal::InvalidCaveat)?;
    match seen {
        Some(lowest) if lowest.unit() != amount.unit() => return Err(Refusal::PriceTooHigh),
        Some(lowest) if lowest.value() <= amount.value() => {}
        _ => *seen = Some(amount),
    }
    Ok(amount)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_price_counts() {
        let mut seen = None;
        for value in ["500msat", "300msat", "400msat"] {
            apply(&mut seen, value).unwrap();
        }
        assert_eq!(seen.unwrap().to_string(), "300msat");
        assert_eq!(apply(&mut seen, "3usd"), Err(Refusal::PriceTooHigh), "another unit");
        assert_eq!(apply(&mut seen, "3 msat"), Err(Refusal::InvalidCaveat));
    }
}
