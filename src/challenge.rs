//! What a server asks for: a token, and the invoice that makes it valid.
//!
//! ```text
//! WWW-Authenticate: L402 macaroon="<base64>", invoice="<bolt11>", version="0", token="<base64>"
//! ```
//!
//! The order and the doubled token serve every client that is deployed: some
//! match `macaroon` and `invoice` next to each other, the specification names
//! `token` and `version`.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;

use crate::macaroon::{MAX_MACAROON, Macaroon};

/// Longest challenge that is read, in bytes.
const MAX_CHALLENGE: usize = 16 * 1024;

/// A token and the invoice that makes it valid once paid.
#[derive(Clone, PartialEq, Eq)]
pub struct Challenge {
    token: Macaroon<'static>,
    invoice: String,
}

impl Challenge {
    pub(crate) fn new(token: Macaroon<'static>, invoice: String) -> Self {
        Self { token, invoice }
    }

    /// The token, unpaid.
    pub fn token(&self) -> &Macaroon<'static> {
        &self.token
    }

    /// The BOLT 11 invoice.
    pub fn invoice(&self) -> &str {
        &self.invoice
    }

    /// The value of the `WWW-Authenticate` header, marked sensitive.
    pub(crate) fn to_header_value(&self) -> HeaderValue {
        let token = self.token.to_base64();
        let text =
            format!(r#"L402 macaroon="{token}", invoice="{}", version="0", token="{token}""#, self.invoice);
        let mut value = HeaderValue::try_from(text).expect("base64 and bech32 are visible ASCII");
        value.set_sensitive(true);
        value
    }
}

impl fmt::Debug for Challenge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Challenge").field("invoice", &self.invoice).finish_non_exhaustive()
    }
}

/// Why a text is no L402 challenge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChallengeError {
    /// Longer than 16 KiB.
    #[error("challenge is too long")]
    TooLong,
    /// The scheme is neither L402 nor LSAT.
    #[error("not an L402 challenge")]
    Scheme,
    /// Not a list of `name="value"`, or a name stands twice.
    #[error("challenge parameters cannot be read")]
    Parameters,
    /// A version other than 0.
    #[error("challenge has an unknown version")]
    Version,
    /// Neither `token` nor `macaroon` is an L402 macaroon, or they differ.
    #[error("challenge has no valid token")]
    Token,
    /// No invoice, or characters that are in none.
    #[error("challenge has no invoice")]
    Invoice,
}

/// Reads the value of one `WWW-Authenticate` header that holds one challenge:
/// scheme `L402` or `LSAT` in any case, parameters in any order, their values
/// quoted or not, unknown ones ignored, the token as `token`, `macaroon` or
/// both.
impl FromStr for Challenge {
    type Err = ChallengeError;

    fn from_str(text: &str) -> Result<Self, ChallengeError> {
        if text.len() > MAX_CHALLENGE {
            return Err(ChallengeError::TooLong);
        }
        let (scheme, parameters) = text.trim().split_once(' ').ok_or(ChallengeError::Scheme)?;
        if !scheme.eq_ignore_ascii_case("L402") && !scheme.eq_ignore_ascii_case("LSAT") {
            return Err(ChallengeError::Scheme);
        }
        let (mut token, mut macaroon, mut invoice, mut version) = (None, None, None, None);
        for parameter in Parameters(parameters) {
            let (name, value) = parameter?;
            let slot = match name {
                _ if name.eq_ignore_ascii_case("token") => &mut token,
                _ if name.eq_ignore_ascii_case("macaroon") => &mut macaroon,
                _ if name.eq_ignore_ascii_case("invoice") => &mut invoice,
                _ if name.eq_ignore_ascii_case("version") => &mut version,
                _ => continue,
            };
            if slot.replace(value).is_some() {
                return Err(ChallengeError::Parameters);
            }
        }
        if version.is_some_and(|version| version != "0") {
            return Err(ChallengeError::Version);
        }
        if token.is_some() && macaroon.is_some() && token != macaroon {
            return Err(ChallengeError::Token);
        }
        let token = decode(token.or(macaroon).ok_or(ChallengeError::Token)?)?;
        let invoice =
            invoice.filter(|text| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric()));
        Ok(Self { token, invoice: invoice.ok_or(ChallengeError::Invoice)?.to_owned() })
    }
}

fn decode(token: &str) -> Result<Macaroon<'static>, ChallengeError> {
    let mut bytes = [0; MAX_MACAROON];
    let len = STANDARD.decode_slice(token, &mut bytes).map_err(|_| ChallengeError::Token)?;
    Ok(Macaroon::decode(&bytes[..len]).map_err(|_| ChallengeError::Token)?.into_owned())
}

/// The `name=value` pairs of a challenge, separated by commas.
struct Parameters<'a>(&'a str);

impl<'a> Parameters<'a> {
    fn read(&mut self) -> Result<(&'a str, &'a str), ChallengeError> {
        let (name, rest) = self.0.split_once('=').ok_or(ChallengeError::Parameters)?;
        let (name, rest) = (name.trim(), rest.trim_start());
        let (value, rest) = match rest.strip_prefix('"') {
            // None of our values holds an escape, so the first quote ends it.
            Some(quoted) => quoted.split_once('"').ok_or(ChallengeError::Parameters)?,
            None => rest.split_at(rest.find(',').unwrap_or(rest.len())),
        };
        let rest = rest.trim_start();
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_')) {
            return Err(ChallengeError::Parameters);
        }
        self.0 = match rest.strip_prefix(',') {
            Some(rest) => rest,
            None if rest.is_empty() => rest,
            None => return Err(ChallengeError::Parameters),
        };
        Ok((name, value.trim()))
    }
}

impl<'a> Iterator for Parameters<'a> {
    type Item = Result<(&'a str, &'a str), ChallengeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.trim().is_empty() {
            return None;
        }
        let parameter = self.read();
        if parameter.is_err() {
            self.0 = "";
        }
        Some(parameter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::macaroon::{Identifier, mint};

    fn challenge() -> Challenge {
        let identifier = Identifier { version: 0, payment_hash: [7; 32].into(), token_id: [1; 32].into() };
        Challenge::new(mint(b"root", &identifier, ["services=a:0"]).unwrap(), "lnbcrt210n1p".into())
    }

    #[test]
    fn what_is_written_is_read_again() {
        let header = challenge().to_header_value();
        assert!(header.is_sensitive());
        let text = header.to_str().unwrap();
        assert!(text.starts_with("L402 macaroon=\""), "{text}");
        assert_eq!(text.parse(), Ok(challenge()));
    }

    #[test]
    fn forms_of_other_servers_are_read() {
        let token = challenge().token().to_base64();
        for text in [
            format!(r#"L402 version="0", token="{token}", invoice="lnbcrt210n1p""#),
            format!(r#"LSAT macaroon="{token}",invoice="lnbcrt210n1p""#),
            format!("l402 invoice=lnbcrt210n1p , macaroon={token}"),
            format!(r#"L402  Token="{token}", realm="a b", invoice="lnbcrt210n1p","#),
        ] {
            assert_eq!(text.parse(), Ok(challenge()), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_challenge_is_refused() {
        let token = challenge().token().to_base64();
        for (text, error) in [
            (String::new(), ChallengeError::Scheme),
            ("Bearer realm=\"x\"".into(), ChallengeError::Scheme),
            ("L402 ".into(), ChallengeError::Scheme),
            ("L402 x".into(), ChallengeError::Parameters),
            (format!(r#"L402 token="{token}"#), ChallengeError::Parameters),
            (format!(r#"L402 token="{token}" invoice="lnbcrt210n1p""#), ChallengeError::Parameters),
            (
                format!(r#"L402 token="{token}", token="{token}", invoice="lnbcrt210n1p""#),
                ChallengeError::Parameters,
            ),
            (
                format!(r#"L402 token="{token}", macaroon="AgEE", invoice="lnbcrt210n1p""#),
                ChallengeError::Token,
            ),
            (format!(r#"L402 token="{token}", invoice="ln bc""#), ChallengeError::Invoice),
            (format!(r#"L402 token="{token}""#), ChallengeError::Invoice),
            (
                format!(r#"L402 version="1", token="{token}", invoice="lnbcrt210n1p""#),
                ChallengeError::Version,
            ),
            (r#"L402 token="AgEE", invoice="lnbcrt210n1p""#.into(), ChallengeError::Token),
            ("x".repeat(MAX_CHALLENGE + 1), ChallengeError::TooLong),
        ] {
            assert_eq!(text.parse::<Challenge>(), Err(error), "{text}");
        }
    }
}
