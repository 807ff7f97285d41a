//! Names of services, offers and capabilities: `[a-z0-9-]{1,64}`.
//!
//! The underscore is left out because it separates a service from its
//! condition in a caveat, the comma and the colon because they separate the
//! entries of lists. So no name can be read as two.

use std::fmt::Write as _;

use sha2::{Digest, Sha256};

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

/// A service name for any text, such as the path of a route, for gates that are
/// made from a list. Names of different texts differ: `a-z` and `0-9` stand for
/// themselves, every other byte is `-` and two hex digits, and what would be
/// longer than 64 bytes, or nothing at all, is `-s` and 62 hex digits of its
/// SHA-256.
///
/// ```
/// assert_eq!(l402::service_name("docs/HD"), "docs-2f-48-44");
/// ```
pub fn service_name(text: &str) -> String {
    let mut name = String::new();
    for byte in text.bytes() {
        if name.len() > MAX_NAME {
            break;
        }
        match byte {
            b'a'..=b'z' | b'0'..=b'9' => name.push(char::from(byte)),
            _ => write!(name, "-{byte:02x}").expect("a string takes any text"),
        }
    }
    if is_name(&name) {
        return name;
    }
    let digest = Sha256::digest(text);
    format!("-s{}", hex::encode(&digest[..31]))
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

    #[test]
    fn names_of_different_texts_differ() {
        let long = "/".repeat(22);
        let texts = [
            "",
            "-",
            "-2f",
            "/",
            "//",
            "/a",
            "a/",
            "a",
            "A",
            "a-b",
            "a/b",
            "a_b",
            "a:b",
            "a,b",
            "a=b",
            "é",
            "-2fa",
            "s",
            "-s",
            "forecast",
            "Forecast",
            &"a".repeat(64),
            &"a".repeat(65),
            &long,
            &long[1..],
            &service_name(&long),
            &service_name(""),
            "docs_valid_until=9",
            "docs-5fvalid-5funtil-3d9",
        ];
        let names: Vec<_> = texts.iter().map(|text| service_name(text)).collect();
        for (i, name) in names.iter().enumerate() {
            assert!(is_name(name), "{name}");
            assert!(!names[..i].contains(name), "{name} is of {} too", texts[i]);
        }
        assert_eq!(service_name("forecast"), "forecast");
    }
}
