//! `services=name:tier,...`: which services a token opens, and at which tier.
//!
//! The gate's service has to be in every list. A later list may leave services
//! out and lower tiers; it names no service that the one before did not name,
//! and no higher tier.

use crate::name;
use crate::refusal::Refusal;

use super::{digits, has_more_entries};

/// The first list, which the server minted, and the last one.
pub(super) struct Lists<'m> {
    minted: &'m str,
    last: &'m str,
    tier: u8,
}

impl Lists<'_> {
    /// The lowest tier of the gate's service over all lists.
    pub(super) fn tier(&self) -> u8 {
        self.tier
    }

    /// Whether the server put this service into the token.
    pub(super) fn minted(&self, service: &str) -> bool {
        tier_of(self.minted, service).is_some()
    }
}

pub(super) fn apply<'m>(
    lists: &mut Option<Lists<'m>>,
    value: &'m str,
    minted: bool,
    service: &str,
) -> Result<(), Refusal> {
    let mut tier = None;
    for entry in value.split(',') {
        let (name, of_name) = parse(entry).ok_or(Refusal::InvalidCaveat)?;
        if name == service {
            tier = Some(tier.map_or(of_name, |lowest| of_name.min(lowest)));
        }
    }
    let tier = tier.ok_or(Refusal::WrongService)?;
    match lists {
        Some(lists) => {
            if has_more_entries(value, lists.last) {
                return Err(Refusal::InvalidCaveat);
            }
            let narrows = value
                .split(',')
                .filter_map(parse)
                .all(|(name, tier)| tier_of(lists.last, name).is_some_and(|before| tier <= before));
            if !narrows {
                return Err(Refusal::InvalidCaveat);
            }
            lists.last = value;
            lists.tier = tier;
        }
        // Without a list of the server's, a holder's says nothing.
        None if minted => *lists = Some(Lists { minted: value, last: value, tier }),
        None => return Err(Refusal::WrongService),
    }
    Ok(())
}

/// The tier of a service in a list; where it stands twice, the lower one.
fn tier_of(list: &str, service: &str) -> Option<u8> {
    list.split(',').filter_map(parse).filter(|(name, _)| *name == service).map(|(_, tier)| tier).min()
}

fn parse(entry: &str) -> Option<(&str, u8)> {
    let (name, tier) = entry.split_once(':')?;
    let tier = u8::try_from(digits(tier)?).ok()?;
    name::is_name(name).then_some((name, tier))
}

/// The services of a list.
#[cfg(feature = "page")]
pub(super) fn names(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').filter_map(parse).map(|(name, _)| name)
}

pub(super) fn list<'a>(services: impl Iterator<Item = &'a str>, tier: u8) -> String {
    services.map(|name| format!("{name}:{tier}")).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(values: &[&'static str]) -> Result<u8, Refusal> {
        let mut lists = None;
        for (i, value) in values.iter().enumerate() {
            apply(&mut lists, value, i == 0, "a")?;
        }
        Ok(lists.unwrap().tier())
    }

    #[test]
    fn the_effective_tier_is_the_lowest() {
        assert_eq!(run(&["a:2,b:1"]), Ok(2));
        assert_eq!(run(&["a:2,b:1", "a:1"]), Ok(1));
        assert_eq!(run(&["a:2,a:1"]), Ok(1));
    }

    #[test]
    fn a_later_list_only_narrows() {
        for later in ["a:3", "a:2,c:0", "a:2,b:2", "a:2,a:3"] {
            assert_eq!(run(&["a:2,b:1", later]), Err(Refusal::InvalidCaveat), "{later}");
        }
        assert_eq!(run(&["a:2,b:1", "a:2", "a:2,b:1"]), Err(Refusal::InvalidCaveat), "b was left out before");
        assert_eq!(run(&["a:2,b:1", "b:1"]), Err(Refusal::WrongService));
    }

    #[test]
    fn a_later_list_has_no_more_entries() {
        assert_eq!(run(&["a:2,b:1", "a:2,a:2"]), Ok(2));
        assert_eq!(run(&["a:2,b:1", "a:2,a:2,a:2"]), Err(Refusal::InvalidCaveat));
    }

    #[test]
    fn a_list_that_does_not_parse_is_refused() {
        for value in
            ["", "a", "a:", "a:256", "a:-1", "a:0,", ",a:0", "a:0,,b:0", "a:0 ", "a_b:0,a:0", "a:0;b:0"]
        {
            assert_eq!(run(&[value]), Err(Refusal::InvalidCaveat), "{value:?}");
        }
    }

    #[test]
    fn a_list_that_only_the_holder_made_opens_nothing() {
        assert_eq!(apply(&mut None, "a:0", false, "a"), Err(Refusal::WrongService));
    }
}
