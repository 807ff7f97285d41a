//! `<service>_capabilities=a,b`: what a token may do. Empty names none.

use crate::name;
use crate::refusal::Refusal;

use super::has_more_entries;

pub(super) fn apply<'m>(seen: &mut Option<&'m str>, value: &'m str, minted: bool) -> Result<(), Refusal> {
    if !entries(value).all(name::is_name) {
        return Err(Refusal::InvalidCaveat);
    }
    match *seen {
        Some(before) if has_more_entries(value, before) => Err(Refusal::InvalidCaveat),
        Some(before) if !entries(value).all(|name| contains(before, name)) => Err(Refusal::InvalidCaveat),
        None if !minted => Err(Refusal::MissingCapability),
        _ => {
            *seen = Some(value);
            Ok(())
        }
    }
}

/// Whether a list, which has been checked, names this capability.
pub(crate) fn contains(list: &str, capability: &str) -> bool {
    entries(list).any(|name| name == capability)
}

fn entries(list: &str) -> impl Iterator<Item = &str> {
    let empty = list.is_empty();
    list.split(',').filter(move |_| !empty)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(values: &[&'static str]) -> Result<&'static str, Refusal> {
        let mut seen = None;
        values.iter().enumerate().try_for_each(|(i, value)| apply(&mut seen, value, i == 0))?;
        Ok(seen.unwrap())
    }

    #[test]
    fn the_last_list_counts_and_is_a_subset() {
        assert_eq!(run(&["read,write", "read"]), Ok("read"));
        assert_eq!(run(&["read", ""]), Ok(""));
        assert_eq!(run(&["read", "read,write"]), Err(Refusal::InvalidCaveat));
        assert_eq!(run(&["", "read"]), Err(Refusal::InvalidCaveat));
        assert_eq!(run(&["read,write", "read", "write"]), Err(Refusal::InvalidCaveat));
        assert_eq!(run(&["read,write", "read,read,read"]), Err(Refusal::InvalidCaveat));
    }

    #[test]
    fn a_list_that_does_not_parse_is_refused() {
        for value in [",", "read,", ",read", "read,,write", "read, write", "Read", "read_all"] {
            assert_eq!(run(&[value]), Err(Refusal::InvalidCaveat), "{value:?}");
        }
    }

    #[test]
    fn a_holder_names_no_capability() {
        assert_eq!(apply(&mut None, "read", false), Err(Refusal::MissingCapability));
    }

    #[test]
    fn a_capability_is_matched_whole() {
        assert!(contains("read,write", "write"));
        assert!(!contains("read-all", "read"));
        assert!(!contains("", ""));
    }
}
