//! `invoice_handle=<text>`: by what the backend finds the token's invoice,
//! where the payment hash is not enough.

use crate::refusal::Refusal;

pub(super) fn apply<'m>(seen: &mut Option<&'m str>, value: &'m str, minted: bool) -> Result<(), Refusal> {
    match seen {
        Some(handle) if *handle == value => Ok(()),
        None if minted => {
            *seen = Some(value);
            Ok(())
        }
        _ => Err(Refusal::InvalidCaveat),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_handle_is_the_one_that_was_minted() {
        let mut seen = None;
        assert_eq!(apply(&mut seen, "inv_2", false), Err(Refusal::InvalidCaveat));
        assert_eq!(apply(&mut seen, "inv_1", true), Ok(()));
        assert_eq!(apply(&mut seen, "inv_1", false), Ok(()));
        assert_eq!(apply(&mut seen, "inv_2", false), Err(Refusal::InvalidCaveat));
        assert_eq!(seen, Some("inv_1"));
    }
}
