//! What a client presents: a token and the preimage of its invoice.
//!
//! ```text
//! Authorization        = credential *( "," credential )
//! credential           = ( "L402" / "LSAT" ) 1*SP token [ ":" preimage ]   ; scheme in any case
//!                      / "Bearer" 1*SP token                 ; where the issuer has a checkout
//! token                = base64, either alphabet, padded or not, canonical
//! preimage             = 64HEXDIG
//! Macaroon, Grpc-Metadata-Macaroon, Token = hex of a macaroon with a `preimage=` caveat
//! ```
//!
//! With the feature `page` a gate that has a page also reads the cookie that the
//! page's form sets (`cookie.rs`), where a request says nothing else.
//!
//! A token without a preimage is read, and refused by every issuer that was not
//! told to admit it (`IssuerBuilder::with_settled_tokens`), but for one of an
//! account, which never has a preimage. Such a token alone is also what a
//! `Bearer` line may carry: any other `Bearer` is somebody else's.
//!
//! A request may present its credential several times, as clients do that send
//! an `L402` and an `LSAT` line. Two different ones are refused. Credentials
//! of other schemes stand beside ours and are left alone, as are `Macaroon` and
//! `Token` headers whose value is not an L402 macaroon.
//!
//! What is found is taken out of the headers ([`take`]) and read once
//! ([`read`]), so that what was authenticated is what is metered, and neither
//! the handler nor the user's closures see a secret.

#[cfg(feature = "page")]
mod cookie;
mod line;

use std::fmt;
use std::str;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use http::HeaderMap;
use http::header::{AUTHORIZATION, HeaderName, HeaderValue, InvalidHeaderValue};

use crate::caveat::Caveat;
use crate::macaroon::{MAX_MACAROON, Macaroon};
use crate::preimage::Preimage;
use crate::refusal::{Malformed, Refusal};

use line::{Part, split, without_ours};

#[cfg(feature = "page")]
pub(crate) use cookie::{cookie_name, take_cookie};

const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
pub(crate) const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
pub(crate) const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

/// Longest base64 of a token, in bytes.
const MAX_BASE64: usize = MAX_MACAROON.div_ceil(3) * 4;
/// Longest `token:preimage`, in bytes.
const MAX_PAIR: usize = MAX_BASE64 + 1 + 64;
/// Longest Authorization line of ours, in bytes: a credential said twice.
const MAX_LINE: usize = 2 * (MAX_PAIR + 16);

/// Most parts between commas of an Authorization line of ours, and how often a
/// request may say its credential: far beyond what clients and intermediaries
/// do, and little work.
const MAX_PARTS: usize = 64;
const MAX_SAID: usize = 8;

/// Headers that carry the hex of a macaroon.
const HEX_HEADERS: [HeaderName; 3] = [
    HeaderName::from_static("macaroon"),
    HeaderName::from_static("grpc-metadata-macaroon"),
    HeaderName::from_static("token"),
];

/// Room for the bytes of one token.
pub(crate) type TokenBuffer = [u8; MAX_MACAROON];

/// A credential as it stood in the headers: a secret, never printed.
#[derive(Clone)]
pub(crate) struct Presented {
    value: HeaderValue,
    form: Form,
}

#[derive(Clone, Copy)]
enum Form {
    /// `token:preimage` in this part of the value.
    Pair { start: usize, end: usize },
    /// `token` of an account, behind `Bearer`.
    Bearer { start: usize, end: usize },
    /// The hex of a macaroon with its preimage.
    Hex,
    /// `token:preimage`, kept by a browser and shown without being asked.
    #[cfg(feature = "page")]
    Cookie,
}

impl Form {
    fn text(self, value: &HeaderValue) -> &[u8] {
        match self {
            Self::Pair { start, end } | Self::Bearer { start, end } => &value.as_bytes()[start..end],
            Self::Hex => value.as_bytes(),
            #[cfg(feature = "page")]
            Self::Cookie => value.as_bytes(),
        }
    }
}

impl fmt::Debug for Presented {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// A token and a preimage that were read, and not verified.
#[derive(Debug)]
pub(crate) struct Credential<'b> {
    pub(crate) macaroon: Macaroon<'b>,
    /// `None` where the token came alone.
    pub(crate) preimage: Option<Preimage>,
}

/// Takes the credential out of the headers. Where it cannot be told what to
/// take, the values are marked sensitive: whoever prints the headers does not
/// print them. `bearers` says whether tokens of accounts come as `Bearer` too.
pub(crate) fn take(headers: &mut HeaderMap, bearers: bool) -> Result<Option<Presented>, Refusal> {
    let taken = take_out(headers, bearers);
    if taken.is_err() {
        let holds_credentials = |name: &HeaderName| *name == AUTHORIZATION || HEX_HEADERS.contains(name);
        let values = headers.iter_mut().filter(|(name, _)| holds_credentials(name));
        values.for_each(|(_, value)| value.set_sensitive(true));
    }
    taken
}

/// Whether the headers hold a credential of ours, or what begins like one.
#[cfg(feature = "client")]
pub(crate) fn is_presented(headers: &HeaderMap) -> bool {
    let is_ours =
        |value: &HeaderValue| split(value.as_bytes(), true).any(|part| matches!(part, Part::Ours(_)));
    headers.get_all(AUTHORIZATION).iter().any(is_ours)
        || HEX_HEADERS.iter().any(|name| headers.get_all(name).iter().any(is_l402_macaroon))
}

/// Takes the credential out of the headers of a request that passes without
/// being judged; and where it cannot be told what to take, all that may hold one.
pub(crate) fn discard(headers: &mut HeaderMap, bearers: bool) {
    if take_out(headers, bearers).is_err() {
        headers.remove(AUTHORIZATION);
        for name in &HEX_HEADERS {
            headers.remove(name);
        }
    }
}

fn take_out(headers: &mut HeaderMap, bearers: bool) -> Result<Option<Presented>, Refusal> {
    let mut found = Found { bearers, ..Found::default() };
    for value in headers.get_all(AUTHORIZATION) {
        found.line(value)?;
    }
    for name in &HEX_HEADERS {
        for value in headers.get_all(name) {
            if is_l402_macaroon(value) {
                found.add(value, Form::Hex)?;
            }
        }
    }
    let Some((value, form)) = found.first else { return Ok(None) };
    if found.is_whole_header(headers) {
        // The usual case moves the value, and so allocates nothing.
        let value = headers.remove(AUTHORIZATION).expect("the credential was found there");
        return Ok(Some(Presented { value, form }));
    }
    let presented = Presented { value: value.clone(), form };
    remove(headers, bearers);
    Ok(Some(presented))
}

impl Presented {
    /// Puts the credential back, once and in the form it had.
    pub(crate) fn put_back(&self, headers: &mut HeaderMap) {
        let text = self.form.text(&self.value);
        let (name, value) = match self.form {
            Form::Pair { .. } => (AUTHORIZATION, authorization("L402 ", text)),
            #[cfg(feature = "page")]
            Form::Cookie => (AUTHORIZATION, authorization("L402 ", text)),
            Form::Bearer { .. } => (AUTHORIZATION, authorization("Bearer ", text)),
            Form::Hex => (HEX_HEADERS[0].clone(), HeaderValue::from_bytes(text)),
        };
        let mut value = value.expect("a part of a header value is one");
        value.set_sensitive(true);
        headers.append(name, value);
    }
}

fn authorization(scheme: &str, text: &[u8]) -> Result<HeaderValue, InvalidHeaderValue> {
    HeaderValue::from_bytes(&[scheme.as_bytes(), text].concat())
}

/// The credentials of a request: all the same, or it is refused.
#[derive(Default)]
struct Found<'h> {
    first: Option<(&'h HeaderValue, Form)>,
    count: usize,
    bearers: bool,
}

impl<'h> Found<'h> {
    fn line(&mut self, value: &'h HeaderValue) -> Result<(), Refusal> {
        let line = value.as_bytes();
        let mut parts = split(line, self.bearers).filter(|part| !matches!(part, Part::Empty)).peekable();
        while let Some(part) = parts.next() {
            let Part::Ours(form) = part else { continue };
            if line.len() > MAX_LINE || memchr::memchr_iter(b',', line).count() >= MAX_PARTS {
                return Err(Malformed::TooLong.into());
            }
            // Behind one of ours, what is no credential is a second token.
            if matches!(parts.peek(), Some(Part::Continued)) {
                return Err(Malformed::SeveralTokens.into());
            }
            self.add(value, form)?;
        }
        Ok(())
    }

    fn add(&mut self, value: &'h HeaderValue, form: Form) -> Result<(), Refusal> {
        self.count += 1;
        if self.count > MAX_SAID {
            return Err(Malformed::TooLong.into());
        }
        let Some((first_value, first_form)) = self.first else {
            self.first = Some((value, form));
            return Ok(());
        };
        let (first, second) = (first_form.text(first_value), form.text(value));
        if first == second {
            return Ok(());
        }
        // `LSAT` with one alphabet, say, and `L402` with the other.
        let (mut a, mut b) = ([0; MAX_MACAROON], [0; MAX_MACAROON]);
        let (a, b) = (read_text(first, first_form, &mut a)?, read_text(second, form, &mut b)?);
        let hash = |credential: Credential<'_>| credential.preimage.map(|preimage| preimage.payment_hash());
        let same = a.macaroon == b.macaroon && hash(a) == hash(b);
        if same { Ok(()) } else { Err(Refusal::TwoCredentials) }
    }

    /// Whether the credential is all there is in the Authorization header.
    fn is_whole_header(&self, headers: &HeaderMap) -> bool {
        let mut lines = headers.get_all(AUTHORIZATION).iter();
        let line = lines.next();
        self.count == 1
            && lines.next().is_none()
            && matches!((line, self.first), (Some(line), Some((value, Form::Pair { .. } | Form::Bearer { .. }))) if std::ptr::eq(line, value) && memchr::memchr(b',', line.as_bytes()).is_none())
    }
}

fn remove(headers: &mut HeaderMap, bearers: bool) {
    let lines = headers.get_all(AUTHORIZATION);
    let is_ours =
        |value: &HeaderValue| split(value.as_bytes(), bearers).any(|part| matches!(part, Part::Ours(_)));
    let mut kept = Vec::new();
    if lines.iter().any(|value| !is_ours(value) || value.as_bytes().contains(&b',')) {
        kept = lines.iter().filter_map(|value| without_ours(value, bearers)).collect();
    }
    headers.remove(AUTHORIZATION);
    for value in kept {
        headers.append(AUTHORIZATION, value);
    }
    for name in HEX_HEADERS {
        if !headers.contains_key(&name) {
            continue;
        }
        let kept: Vec<_> =
            headers.get_all(&name).iter().filter(|value| !is_l402_macaroon(value)).cloned().collect();
        headers.remove(&name);
        for value in kept {
            headers.append(&name, value);
        }
    }
}

fn is_l402_macaroon(value: &HeaderValue) -> bool {
    let text = value.as_bytes();
    // Before any work: V2 begins with 02, and the field is a location or an identifier.
    if text.len() > 2 * MAX_MACAROON || !(text.starts_with(b"0201") || text.starts_with(b"0202")) {
        return false;
    }
    let mut buffer = [0; MAX_MACAROON];
    decode_hex(text, &mut buffer).is_some_and(|bytes| Macaroon::decode(bytes).is_ok())
}

fn decode_hex<'b>(text: &[u8], buffer: &'b mut TokenBuffer) -> Option<&'b [u8]> {
    let bytes = buffer.get_mut(..text.len() / 2)?;
    hex::decode_to_slice(text, bytes).ok()?;
    Some(bytes)
}

/// Reads what was presented. Allocates nothing.
pub(crate) fn read<'b>(
    presented: &Presented,
    buffer: &'b mut TokenBuffer,
) -> Result<Credential<'b>, Refusal> {
    read_text(presented.form.text(&presented.value), presented.form, buffer)
}

fn read_text<'b>(text: &[u8], form: Form, buffer: &'b mut TokenBuffer) -> Result<Credential<'b>, Refusal> {
    match form {
        Form::Pair { .. } | Form::Bearer { .. } => read_pair(text, buffer),
        Form::Hex => read_hex(text, buffer),
        #[cfg(feature = "page")]
        Form::Cookie => read_pair(text, buffer),
    }
}

pub(crate) fn read_pair<'b>(text: &[u8], buffer: &'b mut TokenBuffer) -> Result<Credential<'b>, Refusal> {
    if text.len() > MAX_PAIR {
        return Err(Malformed::TooLong.into());
    }
    let (token, preimage) = match memchr::memrchr(b':', text) {
        Some(colon) if colon + 1 == text.len() => return Err(Malformed::NoPreimage.into()),
        Some(colon) => {
            let preimage = Preimage::from_hex(&text[colon + 1..]).map_err(|_| Malformed::Preimage)?;
            (&text[..colon], Some(preimage))
        }
        None => (text, None),
    };
    // What is no token either lacks its preimage first of all.
    let broken = |malformed| if preimage.is_some() { malformed } else { Malformed::NoPreimage };
    let bytes = decode_base64(token, buffer).ok_or_else(|| broken(Malformed::Base64))?;
    let macaroon = Macaroon::decode(bytes).map_err(|_| broken(Malformed::Macaroon))?;
    Ok(Credential { macaroon, preimage })
}

fn decode_base64<'b>(token: &[u8], buffer: &'b mut TokenBuffer) -> Option<&'b [u8]> {
    let engine = if memchr::memchr2(b'-', b'_', token).is_some() { &URL_SAFE } else { &STANDARD };
    let len = engine.decode_slice(token, buffer).ok()?;
    Some(&buffer[..len])
}

fn read_hex<'b>(text: &[u8], buffer: &'b mut TokenBuffer) -> Result<Credential<'b>, Refusal> {
    let bytes = decode_hex(text, buffer).ok_or(Malformed::Macaroon)?;
    let macaroon = Macaroon::decode(bytes).map_err(|_| Malformed::Macaroon)?;
    let caveats = macaroon.caveats().filter_map(|bytes| Caveat::parse(str::from_utf8(bytes).ok()?));
    let value = caveats.filter(|caveat| caveat.condition() == "preimage").map(|caveat| caveat.value()).last();
    let preimage = value.map(Preimage::from_hex).transpose().map_err(|_| Malformed::Preimage)?;
    Ok(Credential { macaroon, preimage })
}
