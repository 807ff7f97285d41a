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
/// scheme `L402` or `LSAT` in any case, parameters in any order, separated by
/// commas or white space, their values quoted or not, unknown ones ignored, the
/// token as `token`, `macaroon` or both.
impl FromStr for Challenge {
    type Err = ChallengeError;

    fn from_str(text: &str) -> Result<Self, ChallengeError> {
        if text.len() > MAX_CHALLENGE {
            return Err(ChallengeError::TooLong);
        }
        let mut items = Items(text);
        match items.next() {
            Some(Item::Word(scheme)) if is_l402(scheme) => {}
            _ => return Err(ChallengeError::Scheme),
        }
        let mut parameters = Parameters::default();
        for item in items {
            match item {
                Item::Parameter(name, value) => parameters.add(name, value)?,
                Item::Word(_) | Item::Broken => return Err(ChallengeError::Parameters),
            }
        }
        let (token, invoice) = parameters.token_and_invoice()?;
        Ok(Self { token: decode(token)?, invoice: invoice.to_owned() })
    }
}

fn decode(token: &str) -> Result<Macaroon<'static>, ChallengeError> {
    let mut bytes = [0; MAX_MACAROON];
    let len = STANDARD.decode_slice(token, &mut bytes).map_err(|_| ChallengeError::Token)?;
    Ok(Macaroon::decode(&bytes[..len]).map_err(|_| ChallengeError::Token)?.into_owned())
}

/// Whether an authentication scheme is ours.
pub(crate) fn is_l402(scheme: &str) -> bool {
    scheme.eq_ignore_ascii_case("L402") || scheme.eq_ignore_ascii_case("LSAT")
}

/// The parameters of one challenge.
#[derive(Default)]
pub(crate) struct Parameters<'a> {
    token: Option<&'a str>,
    macaroon: Option<&'a str>,
    invoice: Option<&'a str>,
    version: Option<&'a str>,
}

impl<'a> Parameters<'a> {
    pub(crate) fn add(&mut self, name: &str, value: &'a str) -> Result<(), ChallengeError> {
        let slot = match name {
            _ if name.eq_ignore_ascii_case("token") => &mut self.token,
            _ if name.eq_ignore_ascii_case("macaroon") => &mut self.macaroon,
            _ if name.eq_ignore_ascii_case("invoice") => &mut self.invoice,
            _ if name.eq_ignore_ascii_case("version") => &mut self.version,
            _ => return Ok(()),
        };
        match slot.replace(value) {
            Some(_) => Err(ChallengeError::Parameters),
            None => Ok(()),
        }
    }

    pub(crate) fn token_and_invoice(&self) -> Result<(&'a str, &'a str), ChallengeError> {
        if self.version.is_some_and(|version| version != "0") {
            return Err(ChallengeError::Version);
        }
        if self.token.is_some() && self.macaroon.is_some() && self.token != self.macaroon {
            return Err(ChallengeError::Token);
        }
        let token = self.token.or(self.macaroon).ok_or(ChallengeError::Token)?;
        let is_invoice = |text: &&str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric());
        Ok((token, self.invoice.filter(is_invoice).ok_or(ChallengeError::Invoice)?))
    }
}

/// What a line of challenges is made of (RFC 9110, section 11.6.1), in its
/// order. Servers separate parameters by commas, by white space, or by both.
pub(crate) struct Items<'a>(pub(crate) &'a str);

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Item<'a> {
    /// A scheme, or a token of 68 characters behind one that is not ours.
    Word(&'a str),
    /// `name=value`.
    Parameter(&'a str, &'a str),
    /// What cannot be read, and ends the line.
    Broken,
}

impl<'a> Items<'a> {
    fn read(&mut self) -> Option<Item<'a>> {
        const SPACE: [char; 2] = [' ', '\t'];
        const SEPARATOR: [char; 3] = [' ', '\t', ','];
        let text = self.0.trim_start_matches(SEPARATOR);
        let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)));
        let (name, rest) = text.split_at(end.unwrap_or(text.len()));
        let (value, rest) = match rest.trim_start_matches(SPACE).strip_prefix('=') {
            Some(rest) if !name.is_empty() => {
                let rest = rest.trim_start_matches(SPACE);
                match rest.strip_prefix('"') {
                    Some(rest) => split_quoted(rest)?,
                    None => rest.split_at(rest.find(SEPARATOR).unwrap_or(rest.len())),
                }
            }
            _ if rest.is_empty() || rest.starts_with(SEPARATOR) => {
                self.0 = rest;
                return Some(Item::Word(name));
            }
            _ => {
                let (word, rest) = text.split_at(text.find(SEPARATOR).unwrap_or(text.len()));
                self.0 = rest;
                return (!word.contains('"')).then_some(Item::Word(word));
            }
        };
        self.0 = rest;
        Some(Item::Parameter(name, value))
    }
}

/// A quoted text and what follows it. None of our values holds an escape, which
/// is left as it stands.
fn split_quoted(text: &str) -> Option<(&str, &str)> {
    let mut escaped = false;
    let end = text.bytes().position(|byte| {
        let is_end = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        is_end
    })?;
    Some((&text[..end], &text[end + 1..]))
}

impl<'a> Iterator for Items<'a> {
    type Item = Item<'a>;

    fn next(&mut self) -> Option<Item<'a>> {
        if self.0.trim_start_matches([' ', '\t', ',']).is_empty() {
            return None;
        }
        Some(self.read().unwrap_or_else(|| {
            self.0 = "";
            Item::Broken
        }))
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
            format!(r#"L402 version="0" macaroon="{token}" invoice="lnbcrt210n1p""#),
            format!(r#"L402 realm="a \"b\", c",token = {token},invoice=lnbcrt210n1p"#),
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
            ("L402 ".into(), ChallengeError::Token),
            ("L402 x".into(), ChallengeError::Parameters),
            (format!(r#"L402 token="{token}"#), ChallengeError::Parameters),
            (format!(r#"L402 token="{token}", L402 invoice="lnbcrt210n1p""#), ChallengeError::Parameters),
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
