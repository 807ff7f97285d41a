//! Texts that go out and come back unchanged: bytes, a MAC over them, base64url.
//!
//! ```text
//! text = base64url( kind 1 || key id 4 || fields || HMAC-SHA256 32 ), without padding
//! key  = HMAC-SHA256(master, "l402/<kind>/v1" || network)
//! ```
//!
//! Each kind has a key of its own, so that none passes for another, nor for a
//! token.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::Mac;
use zeroize::Zeroizing;

use crate::keys::{SigningKey, SigningKeys};
use crate::macaroon::{HmacSha256, keyed};

/// Longest text that is read.
const MAX_TEXT: usize = 12 * 1024;
const MAC_LEN: usize = 32;

/// What a text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Order = 1,
    Context = 2,
    Status = 3,
}

/// The keys of what a checkout signs.
pub(crate) struct LabelledKeys {
    order: HmacSha256,
    context: HmacSha256,
    status: HmacSha256,
    account: HmacSha256,
}

impl LabelledKeys {
    /// `labelled` is the MAC of the master key, fed with label and network.
    pub(crate) fn new(labelled: impl Fn(&str) -> HmacSha256) -> Self {
        let key = |label: &str| {
            let key: Zeroizing<[u8; 32]> = Zeroizing::new(labelled(label).finalize().into_bytes().into());
            keyed(&*key)
        };
        Self {
            order: key("l402/order/v1"),
            context: key("l402/context/v1"),
            status: key("l402/status/v1"),
            account: key("l402/account/v1"),
        }
    }

    fn of(&self, kind: Kind) -> HmacSha256 {
        match kind {
            Kind::Order => self.order.clone(),
            Kind::Context => self.context.clone(),
            Kind::Status => self.status.clone(),
        }
    }

    /// 32 bytes that nobody else can make of these.
    pub(super) fn account(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut mac = self.account.clone();
        for part in parts {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }
}

/// Why a text is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    /// It is of a key that this server does not hold (any more).
    UnknownKey,
    /// It was altered, cut off, or is no such text.
    Forged,
}

/// A text that is being written.
pub(super) struct Sealing {
    kind: Kind,
    bytes: Vec<u8>,
}

impl Sealing {
    pub(super) fn new(kind: Kind, key: &SigningKey) -> Self {
        let mut bytes = vec![kind as u8];
        bytes.extend_from_slice(&key.id());
        Self { kind, bytes }
    }

    pub(super) fn bytes(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    pub(super) fn number(self, number: u64) -> Self {
        self.bytes(&number.to_be_bytes())
    }

    /// A text of at most 65,535 bytes.
    pub(super) fn text(self, text: &str) -> Self {
        let len = u16::try_from(text.len()).expect("names and conditions are short");
        self.bytes(&len.to_be_bytes()).bytes(text.as_bytes())
    }

    pub(super) fn seal(self, key: &SigningKey) -> String {
        let mut mac = key.labelled().of(self.kind);
        mac.update(&self.bytes);
        let tag = mac.finalize().into_bytes();
        URL_SAFE_NO_PAD.encode([&self.bytes[..], &tag[..]].concat())
    }
}

/// The fields of a text whose MAC held.
pub(super) struct Opened {
    bytes: Vec<u8>,
    at: usize,
}

impl Opened {
    /// Reads a text. The MAC is compared in constant time, before any field is read.
    pub(super) fn open(kind: Kind, text: &str, keys: &SigningKeys) -> Result<(Self, [u8; 4]), Broken> {
        if text.len() > MAX_TEXT {
            return Err(Broken::Forged);
        }
        let mut bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| Broken::Forged)?;
        if bytes.len() < 5 + MAC_LEN || bytes[0] != kind as u8 {
            return Err(Broken::Forged);
        }
        let id = [bytes[1], bytes[2], bytes[3], bytes[4]];
        let key = keys.by_id(id).ok_or(Broken::UnknownKey)?;
        let tag = bytes.split_off(bytes.len() - MAC_LEN);
        let mut mac = key.labelled().of(kind);
        mac.update(&bytes);
        mac.verify_slice(&tag).map_err(|_| Broken::Forged)?;
        Ok((Self { bytes, at: 5 }, id))
    }

    fn take(&mut self, len: usize) -> Option<&[u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(len)?)?;
        self.at += len;
        Some(taken)
    }

    pub(super) fn bytes<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    pub(super) fn number(&mut self) -> Option<u64> {
        self.bytes().map(u64::from_be_bytes)
    }

    pub(super) fn text(&mut self) -> Option<String> {
        let len = usize::from(u16::from_be_bytes(self.bytes()?));
        String::from_utf8(self.take(len)?.to_vec()).ok()
    }
}

impl fmt::Debug for LabelledKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LabelledKeys([redacted])")
    }
}
