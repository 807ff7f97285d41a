//! `<service>_rate=<n>/<seconds>`: how often a pass may be used.

use crate::offer::Rate;
use crate::refusal::Refusal;

use super::digits;

pub(super) fn apply(seen: &mut Option<Rate>, value: &str, minted: bool) -> Result<(), Refusal> {
    let rate = parse(value).ok_or(Refusal::InvalidCaveat)?;
    match seen {
        Some(before) if *before == rate => Ok(()),
        None if minted => {
            *seen = Some(rate);
            Ok(())
        }
        // One rate is kept for a token: the server's.
        _ => Err(Refusal::InvalidCaveat),
    }
}

fn parse(value: &str) -> Option<Rate> {
    let (n, seconds) = value.split_once('/')?;
    Rate::new(digits(n)?, digits(seconds)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_server_sets_a_rate() {
        let mut seen = None;
        assert_eq!(apply(&mut seen, "1/60", false), Err(Refusal::InvalidCaveat));
        assert_eq!(apply(&mut seen, "10/60", true), Ok(()));
        assert_eq!(apply(&mut seen, "10/60", false), Ok(()));
        assert_eq!(apply(&mut seen, "1/60", false), Err(Refusal::InvalidCaveat));
        assert_eq!(apply(&mut seen, "100/60", false), Err(Refusal::InvalidCaveat));
    }

    #[test]
    fn what_is_no_rate_is_refused() {
        for value in ["", "10", "10/", "/60", "0/60", "10/0", "-1/60", "1/1/1", "1 / 60"] {
            assert_eq!(parse(value), None, "{value}");
        }
    }
}
