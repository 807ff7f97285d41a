//! `<service>_valid_until=<unix seconds>`: the first moment at which a token
//! is no longer good.

use crate::refusal::Refusal;

use super::digits;

pub(super) fn apply(seen: &mut Option<u64>, value: &str, minted: bool, now: u64) -> Result<(), Refusal> {
    let until = digits(value).ok_or(Refusal::InvalidCaveat)?;
    if now >= until {
        return Err(Refusal::Expired);
    }
    match seen {
        Some(earliest) => *earliest = until.min(*earliest),
        // A token that the server gave no end has none that could be earlier.
        None if !minted => return Err(Refusal::InvalidCaveat),
        None => *seen = Some(until),
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
    fn the_earliest_counts() {
        let mut seen = None;
        apply(&mut seen, "200", true, 99).unwrap();
        apply(&mut seen, "100", false, 99).unwrap();
        apply(&mut seen, "300", false, 99).unwrap();
        assert_eq!(seen, Some(100));
    }

    #[test]
    fn what_is_no_number_or_only_the_holders_is_refused() {
        assert_eq!(apply(&mut None, "soon", true, 99), Err(Refusal::InvalidCaveat));
        assert_eq!(apply(&mut None, "100", false, 99), Err(Refusal::InvalidCaveat));
    }
}
