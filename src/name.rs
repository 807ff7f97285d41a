//! Names of services, offers and capabilities: `[a-z0-9-]{1,64}`.
//!
//! The underscore is left out because it separates a service from its
//! condition in a caveat, the comma and the colon because they separate the
//! entries of lists. So no name can be read as two.

use crate::error::{Error, ErrorKind};

/// Longest name, in bytes.
pub(crate) const MAX_NAME: usize = 64;

pub(crate) fn is_name(text: &str) -> bool {
    (1..=MAX_NAME).contains(&text.len())
        && text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'))
}

pub(crate) fn validate(name: &str) -> Result<(), Error> {
    if is_name(name) {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Name,
        format!("`{}` is not a name: 1 to 64 of a-z, 0-9 and `-`", name.escape_debug()),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_names_are_names() {
        for good in ["a", "forecast", "gpt-4", "0", &"a".repeat(64)] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", "A", "a_b", "a:b", "a,b", "a=b", "a b", "a/b", "é", &"a".repeat(65)] {
            assert!(!is_name(bad), "{bad}");
        }
    }
}
