//! `<service>_max_uses=<n>`: how many requests a token is good for.

use crate::refusal::Refusal;

use super::{Uses, digits};

pub(super) fn apply(seen: &mut Option<Uses>, value: &str, minted: bool) -> Result<(), Refusal> {
    let n = digits(value).ok_or(Refusal::InvalidCaveat)?;
    match seen {
        Some(uses) => uses.ceiling = n.min(uses.ceiling),
        // A pass is not counted, so nobody could say whether n are spent.
        None if !minted => return Err(Refusal::InvalidCaveat),
        None => *seen = Some(Uses { sold: n, ceiling: u64::MAX }),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_lowers_the_ceiling_and_not_what_was_sold() {
        let mut seen = None;
        apply(&mut seen, "100", true).unwrap();
        apply(&mut seen, "5", false).unwrap();
        apply(&mut seen, "500", false).unwrap();
        assert_eq!(seen, Some(Uses { sold: 100, ceiling: 5 }));
    }

    #[test]
    fn a_pass_cannot_be_counted_by_its_holder() {
        assert_eq!(apply(&mut None, "5", false), Err(Refusal::InvalidCaveat));
    }
}
