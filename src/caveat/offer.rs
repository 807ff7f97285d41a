//! `<service>_offer=<id>`: the offer a token was bought as.
//!
//! Where the offer of one service opens another, the other's caveat names the
//! seller too, as in `archive_offer=news/monthly`. The slash is in no name, so
//! an own offer cannot be mistaken for another's.

use std::borrow::Cow;

use crate::refusal::Refusal;

pub(super) fn apply<'m>(seen: &mut Option<&'m str>, value: &'m str, minted: bool) -> Result<(), Refusal> {
    match seen {
        Some(offer) if *offer == value => Ok(()),
        None if minted => {
            *seen = Some(value);
            Ok(())
        }
        _ => Err(Refusal::WrongOffer),
    }
}

/// What is minted for `service` when `seller` sells `offer`.
pub(super) fn value<'a>(seller: &str, offer: &'a str, service: &str) -> Cow<'a, str> {
    if seller == service { Cow::Borrowed(offer) } else { Cow::Owned(format!("{seller}/{offer}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_caveat_names_the_minted_offer() {
        let mut seen = None;
        assert_eq!(apply(&mut seen, "monthly", false), Err(Refusal::WrongOffer));
        assert_eq!(apply(&mut seen, "monthly", true), Ok(()));
        assert_eq!(apply(&mut seen, "monthly", false), Ok(()));
        assert_eq!(apply(&mut seen, "yearly", false), Err(Refusal::WrongOffer));
        assert_eq!(apply(&mut seen, "yearly", true), Err(Refusal::WrongOffer));
    }
}
