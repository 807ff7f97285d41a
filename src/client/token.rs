//! A token as a client sees it: an opaque text, of which it may read a part.

use std::fmt::Write as _;

use base64::Engine as _;
use http::{HeaderValue, Uri};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::caveat::Caveat;
use crate::credential::{STANDARD, URL_SAFE};
use crate::macaroon::{MAX_MACAROON, Macaroon};
use crate::preimage::{PaymentHash, Preimage};

/// Longest token that is read, in bytes: a macaroon of the longest in base64,
/// and then some, since not every server's token is one.
const MAX_TOKEN: usize = 8 * 1024;
/// Conditions that differ from one token to the next of the same kind.
const OF_ONE_TOKEN: [&str; 2] = ["preimage", "invoice_handle"];

/// What a token says of itself. None of it is verified: only the server can.
#[derive(Debug)]
pub(super) struct Token {
    /// The text, in which nothing ends or splits a header.
    pub(super) text: Zeroizing<String>,
    /// The hash of the payment that makes it valid; `None` where it is no L402 macaroon.
    pub(super) payment_hash: Option<PaymentHash>,
    /// What it opens: all of its caveats but those of time and invoice, one a line;
    /// `None` where it does not tell.
    pub(super) scope: Option<String>,
    pub(super) services: Vec<String>,
    /// Unix seconds.
    pub(super) valid_until: Option<u64>,
    pub(super) is_single_use: bool,
}

impl Token {
    /// Reads a token; `None` for a text that no header may hold.
    pub(super) fn read(text: &str) -> Option<Self> {
        let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"+/=-_.~".contains(&byte);
        if text.is_empty() || text.len() > MAX_TOKEN || !text.bytes().all(is_token) {
            return None;
        }
        let mut token = Self {
            text: Zeroizing::new(text.to_owned()),
            payment_hash: None,
            scope: None,
            services: Vec::new(),
            valid_until: None,
            is_single_use: false,
        };
        let engine = if text.contains(['-', '_']) { &URL_SAFE } else { &STANDARD };
        let mut bytes = Zeroizing::new([0; MAX_MACAROON]);
        if let Ok(len) = engine.decode_slice(text, &mut *bytes) {
            if let Ok(macaroon) = Macaroon::decode(&bytes[..len]) {
                token.read_macaroon(&macaroon);
            }
        }
        Some(token)
    }

    fn read_macaroon(&mut self, macaroon: &Macaroon<'_>) {
        let identifier = macaroon.identifier();
        if identifier.version != 0 {
            return;
        }
        self.payment_hash = Some(identifier.payment_hash);
        let (mut scope, mut expiries) = (String::new(), Vec::<(String, u64)>::new());
        for bytes in macaroon.caveats() {
            let text = String::from_utf8_lossy(bytes);
            let caveat = Caveat::parse(&text);
            let (condition, value) = caveat.as_ref().map_or((&*text, ""), |c| (c.condition(), c.value()));
            if let Some(service) = condition.strip_suffix("_valid_until") {
                let at = value.parse().unwrap_or(0);
                match expiries.iter_mut().find(|(of, _)| of == service) {
                    Some((_, earliest)) => *earliest = at.min(*earliest),
                    None => expiries.push((service.to_owned(), at)),
                }
                continue;
            }
            if OF_ONE_TOKEN.contains(&condition) {
                continue;
            }
            if condition == "services" {
                let names = value.split(',').map(|entry| entry.split(':').next().unwrap_or_default());
                // For people to read: nothing in it steers a terminal.
                self.services = names.map(|name| name.escape_debug().to_string()).collect();
            }
            self.is_single_use |= condition.ends_with("_max_uses") && value == "1";
            writeln!(scope, "{}", text.escape_debug()).expect("a String grows");
        }
        // Of several services the last one decides: until then it opens something.
        self.valid_until = expiries.into_iter().map(|(_, earliest)| earliest).max();
        scope.pop();
        self.scope = Some(scope).filter(|scope| !scope.is_empty());
    }

    /// What tokens that can take each other's place have in common: what they say
    /// of themselves, or else where they were sold.
    pub(super) fn scope_at(&self, place: &str) -> String {
        self.scope.clone().unwrap_or_else(|| place.to_owned())
    }
}

/// Where a token is sold. Of the query, which may be secret, it has a hash.
pub(super) fn place(uri: &Uri) -> String {
    let mut place = format!("path={}", uri.path());
    if let Some(query) = uri.query().filter(|query| !query.is_empty()) {
        let hash = hex::encode(&Sha256::digest(query.as_bytes())[..8]);
        write!(place, "\nquery={hash}").expect("a String grows");
    }
    place
}

/// The value of the Authorization header, marked sensitive.
pub(super) fn credential(token: &str, preimage: &Preimage) -> Option<HeaderValue> {
    let preimage = Zeroizing::new(preimage.to_hex());
    let text = Zeroizing::new(format!("L402 {token}:{}", *preimage));
    let mut value = HeaderValue::from_str(&text).ok()?;
    value.set_sensitive(true);
    Some(value)
}
