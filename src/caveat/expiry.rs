//! `<service>_valid_until=<unix seconds>`: the first moment at which a token
//! is no longer good.

use crate::refusal::Refusal;

use super::digits;

/// When a token ends, in unix seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Expiry {
    /// As it was sold. Its uses are remembered until then: a holder who could
    /// shorten that would have them forgotten, and use the token again.
    pub(crate) sold: u64,
    /// The earliest of all caveats.
    pub(crate) earliest: u64,
}

pub(super) fn apply(seen: &mut Option<Expiry>, value: &str, minted: bool, now: u64) -> Result<(), Refusal> {
    let until = digits(value).ok_or(Refusal::InvalidCaveat)?;
    if now >= until {
        return Err(Refusal::Expired);
    }
    match seen {
        Some(expiry) => expiry.earliest = until.min(expiry.earliest),
        // A token that the server gave no end has none that could be earlier.
        None if !minted => return Err(Refusal::InvalidCaveat),
        None => *seen = Some(Expiry { sold: until, earliest: until }),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_itself_is_too_late() {
        assert_eq!(apply(&mut None, "100", true, 99), Ok(()));
        assert_eq!(apply(&mut None, "100", true, 100), Err(Refusal::Expired));
    }

    #[test]
    fn the_earliest_counts_and_what_was_sold_is_remembered() {
        let mut seen = None;
        apply(&mut seen, "200", true, 99).unwrap();
        apply(&mut seen, "100", false, 99).unwrap();
        apply(&mut seen, "300", false, 99).unwrap();
        assert_eq!(seen, Some(Expiry { sold: 200, earliest: 100 }));
    }

    #[test]
    fn what_is_no_number_or_only_the_holders_is_refused() {
        assert_eq!(apply(&mut None, "soon", true, 99), Err(Refusal::InvalidCaveat));
        assert_eq!(apply(&mut None, "100", false, 99), Err(Refusal::InvalidCaveat));
    }
}
