//! An Authorization line: credentials of ours and of others, between commas.

use http::header::HeaderValue;

use super::{Form, MAX_BASE64, decode_base64};
use crate::macaroon::{FORMAT_ACCOUNT, MAX_MACAROON, Macaroon};

/// A part of an Authorization line between commas.
pub(super) enum Part {
    /// A credential of ours.
    Ours(Form),
    /// The beginning of a credential of another scheme.
    Foreign,
    /// No scheme: what goes on from the part before it.
    Continued,
    /// Nothing, which a list may hold anywhere (RFC 9110, section 5.6.1).
    Empty,
}

pub(super) fn split(line: &[u8], bearers: bool) -> impl Iterator<Item = Part> {
    let mut start = 0;
    memchr::memchr_iter(b',', line).chain([line.len()]).map(move |comma| {
        let range = trim(line, start, comma);
        start = comma + 1;
        classify(line, range, bearers)
    })
}

/// The range without optional white space at its ends.
fn trim(line: &[u8], mut start: usize, mut end: usize) -> (usize, usize) {
    let is_space = |at: usize| matches!(line[at], b' ' | b'\t');
    while start < end && is_space(start) {
        start += 1;
    }
    while start < end && is_space(end - 1) {
        end -= 1;
    }
    (start, end)
}

fn classify(line: &[u8], (start, end): (usize, usize), bearers: bool) -> Part {
    let part = &line[start..end];
    if part.is_empty() {
        return Part::Empty;
    }
    let Some(space) = part.iter().take(64).position(|byte| *byte == b' ') else {
        let bare = part.eq_ignore_ascii_case(b"L402") || part.eq_ignore_ascii_case(b"LSAT");
        return if bare { Part::Ours(Form::Pair { start: end, end }) } else { Part::Continued };
    };
    let scheme = &part[..space];
    let spaces = part[space..].iter().take_while(|byte| **byte == b' ').count();
    let start = start + space + spaces;
    if scheme.eq_ignore_ascii_case(b"L402") || scheme.eq_ignore_ascii_case(b"LSAT") {
        Part::Ours(Form::Pair { start, end })
    } else if bearers && scheme.eq_ignore_ascii_case(b"Bearer") && is_account_token(&line[start..end]) {
        Part::Ours(Form::Bearer { start, end })
    } else {
        Part::Foreign
    }
}

/// Whether this is the base64 of a token of an account.
fn is_account_token(text: &[u8]) -> bool {
    // Before any work: V2, and an identifier of 66 bytes without a location.
    if text.len() > MAX_BASE64 || !text.starts_with(b"AgJC") {
        return false;
    }
    let mut buffer = [0; MAX_MACAROON];
    decode_base64(text, &mut buffer)
        .and_then(|bytes| Macaroon::decode(bytes).ok())
        .is_some_and(|macaroon| macaroon.identifier().token_id.format() == FORMAT_ACCOUNT)
}

/// The line without our credentials, or `None` if nothing else stood there.
/// What is left keeps its bytes: it may be signed, or a quoted text.
pub(super) fn without_ours(value: &HeaderValue, bearers: bool) -> Option<HeaderValue> {
    let line = value.as_bytes();
    let is_ours = |part: &Part| matches!(part, Part::Ours(_));
    if !split(line, bearers).any(|part| is_ours(&part)) {
        return Some(value.clone());
    }
    let mut kept = Vec::new();
    for (bytes, part) in line.split(|byte| *byte == b',').zip(split(line, bearers)) {
        let leads = kept.is_empty() && matches!(part, Part::Empty);
        if is_ours(&part) || leads {
            continue;
        }
        kept.extend_from_slice(bytes);
        kept.push(b',');
    }
    while matches!(kept.last(), Some(b',' | b' ' | b'\t')) {
        kept.pop();
    }
    let kept = kept.trim_ascii_start();
    if kept.is_empty() {
        return None;
    }
    let mut value = HeaderValue::from_bytes(kept).expect("parts of a header value are one");
    value.set_sensitive(true);
    Some(value)
}
