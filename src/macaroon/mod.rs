//! Macaroons, version 2 binary: the token of L402.
//!
//! A macaroon is an identifier, a list of caveats and a chain of HMACs over
//! them. The server keeps no copy: it derives the root key again from the
//! identifier, walks the chain and compares. Whoever holds a macaroon can
//! append a caveat ([`Macaroon::attenuate`]) and nobody can take one away.
//!
//! | file | step |
//! |---|---|
//! | `format` | bytes to [`Macaroon`] and back: capped, iterative, canonical |
//! | `mint` | identifier, caveats and root key to a new macaroon |
//! | `verify` | the HMAC chain, in constant time and without allocation |
//!
//! ```
//! use l402::macaroon::{Identifier, Macaroon, mint};
//!
//! let identifier = Identifier { version: 0, payment_hash: [7; 32].into(), token_id: [1; 32].into() };
//! let minted = mint(b"a root key of this identifier", &identifier, ["services=forecast:0"])?;
//! let weaker = minted.attenuate("forecast_valid_until=2000000000")?;
//!
//! let read = Macaroon::decode(weaker.as_bytes())?;
//! assert_eq!(read.caveats().count(), 2);
//! assert!(read.verify(b"a root key of this identifier"));
//! assert!(!read.verify(b"another"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Sources: the L402 macaroon specification, and libmacaroons' V2 format.

mod format;
mod mint;
mod verify;

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use zeroize::Zeroizing;

pub use format::DecodeError;
pub use mint::{MintError, mint};
pub(crate) use verify::{HmacSha256, Verified, keyed, verify};

use crate::preimage::{PaymentHash, Preimage};

/// Longest macaroon that is read or made, in bytes.
pub const MAX_MACAROON: usize = 4096;
/// Most caveats of one macaroon.
pub const MAX_CAVEATS: usize = 32;
/// Longest caveat, in bytes.
pub const MAX_CAVEAT: usize = 512;
/// Length of an L402 identifier, in bytes: version, payment hash, token id.
pub const IDENTIFIER_LEN: usize = 66;
/// Length of the signature, in bytes.
const SIGNATURE_LEN: usize = 32;

/// A part of the macaroon's bytes.
#[derive(Clone, Copy, Default)]
struct Span {
    start: u16,
    len: u16,
}

impl Span {
    fn of(self, bytes: &[u8]) -> &[u8] {
        &bytes[usize::from(self.start)..][..usize::from(self.len)]
    }
}

/// A decoded macaroon. It borrows what it was decoded from, and owns its bytes
/// once minted, attenuated or made [`into_owned`](Self::into_owned).
///
/// Decoding checks the form alone. What the macaroon claims is worth nothing
/// before its signature was verified.
#[derive(Clone)]
pub struct Macaroon<'a> {
    bytes: Cow<'a, [u8]>,
    location: Option<Span>,
    identifier: Span,
    caveats: [Span; MAX_CAVEATS],
    caveat_count: u8,
}

impl<'a> Macaroon<'a> {
    /// Reads the V2 binary form.
    ///
    /// # Errors
    /// Anything that is not one canonical, first-party, L402 macaroon within
    /// the caps: see [`DecodeError`].
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        format::decode(Cow::Borrowed(bytes))
    }

    /// The V2 binary form. Decoding it gives this macaroon again, byte for byte.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The location field, which is a hint outside the signature and grants
    /// nothing. `Some("")` and `None` are different bytes.
    pub fn location(&self) -> Option<&[u8]> {
        self.location.map(|span| span.of(&self.bytes))
    }

    /// What the macaroon says it is for.
    pub fn identifier(&self) -> Identifier {
        Identifier::from_bytes(self.identifier_bytes())
    }

    fn identifier_bytes(&self) -> &[u8] {
        self.identifier.of(&self.bytes)
    }

    /// The caveats, in their order.
    pub fn caveats(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.caveats[..usize::from(self.caveat_count)].iter().map(|span| span.of(&self.bytes))
    }

    /// The last HMAC of the chain.
    fn signature(&self) -> &[u8] {
        &self.bytes[self.bytes.len() - SIGNATURE_LEN..]
    }

    /// The V2 binary form in base64, as it goes into challenge and credential.
    pub fn to_base64(&self) -> String {
        STANDARD.encode(self.as_bytes())
    }

    /// The value of the Authorization header that this token makes with the
    /// preimage of its invoice, marked sensitive.
    pub fn credential(&self, preimage: &Preimage) -> HeaderValue {
        let preimage = Zeroizing::new(preimage.to_hex());
        let text = Zeroizing::new(format!("L402 {}:{}", self.to_base64(), *preimage));
        let mut value = HeaderValue::from_str(&text).expect("base64 and hex are visible ASCII");
        value.set_sensitive(true);
        value
    }

    /// The same macaroon, owning its bytes.
    pub fn into_owned(self) -> Macaroon<'static> {
        Macaroon { bytes: Cow::Owned(self.bytes.into_owned()), ..self }
    }
}

impl fmt::Debug for Macaroon<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Macaroon").field("caveats", &self.caveat_count).finish_non_exhaustive()
    }
}

impl PartialEq for Macaroon<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Macaroon<'_> {}

/// The 66 bytes that name a token: version, payment hash and token id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identifier {
    /// Version of the identifier's layout. L402 knows 0.
    pub version: u16,
    /// The hash of the invoice that pays for the token; of a token of an account,
    /// the account.
    pub payment_hash: PaymentHash,
    /// What makes the token one of its kind.
    pub token_id: TokenId,
}

impl Identifier {
    fn from_bytes(bytes: &[u8]) -> Self {
        let part =
            |from: usize| <[u8; 32]>::try_from(&bytes[from..from + 32]).expect("an identifier has 66 bytes");
        Self {
            version: u16::from_be_bytes([bytes[0], bytes[1]]),
            payment_hash: part(2).into(),
            token_id: part(34).into(),
        }
    }

    /// The bytes as they stand in the macaroon.
    pub fn to_bytes(&self) -> [u8; IDENTIFIER_LEN] {
        let mut bytes = [0; IDENTIFIER_LEN];
        bytes[..2].copy_from_slice(&self.version.to_be_bytes());
        bytes[2..34].copy_from_slice(self.payment_hash.as_bytes());
        bytes[34..].copy_from_slice(self.token_id.as_bytes());
        bytes
    }
}

/// The 32 bytes of a token id. Ours say which key signed the token, when, and
/// how many of its caveats are the server's:
///
/// | bytes | is |
/// |---|---|
/// | 0 | format, 1: the preimage proves payment; 2: an account, which the ledger says is paid for |
/// | 1..5 | id of the root key |
/// | 5..10 | issued at, unix seconds, big-endian |
/// | 10 | count of minted caveats |
/// | 11..32 | random |
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenId([u8; 32]);

/// The format byte of tokens whose preimage proves payment.
pub(crate) const FORMAT_PREIMAGE: u8 = 1;
/// The format byte of tokens of an account, which stands in place of the payment
/// hash. No preimage is needed, and none is enough.
pub(crate) const FORMAT_ACCOUNT: u8 = 2;

impl TokenId {
    pub(crate) fn new(key_id: [u8; 4], issued_at: u64, minted: u8, random: [u8; 21]) -> Self {
        let mut bytes = [0; 32];
        bytes[0] = FORMAT_PREIMAGE;
        bytes[1..5].copy_from_slice(&key_id);
        bytes[5..10].copy_from_slice(&issued_at.to_be_bytes()[3..]);
        bytes[10] = minted;
        bytes[11..].copy_from_slice(&random);
        Self(bytes)
    }

    /// The same, of a token of an account.
    #[cfg(feature = "offers")]
    pub(crate) fn of_account(mut self) -> Self {
        self.0[0] = FORMAT_ACCOUNT;
        self
    }

    /// The bytes as they stand in the identifier.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    pub(crate) fn format(&self) -> u8 {
        self.0[0]
    }

    pub(crate) fn key_id(&self) -> [u8; 4] {
        [self.0[1], self.0[2], self.0[3], self.0[4]]
    }

    pub(crate) fn issued_at(&self) -> u64 {
        self.0[5..10].iter().fold(0, |seconds, byte| seconds << 8 | u64::from(*byte))
    }

    pub(crate) fn minted(&self) -> u8 {
        self.0[10]
    }
}

impl From<[u8; 32]> for TokenId {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenId({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_id_gives_back_its_parts() {
        let id = TokenId::new([1, 2, 3, 4], 1_900_000_000, 4, [9; 21]);
        assert_eq!(id.format(), FORMAT_PREIMAGE);
        assert_eq!(id.key_id(), [1, 2, 3, 4]);
        assert_eq!(id.issued_at(), 1_900_000_000);
        assert_eq!(id.minted(), 4);
    }

    #[test]
    fn debug_shows_no_byte_of_the_token() {
        let identifier = Identifier { version: 0, payment_hash: [7; 32].into(), token_id: [1; 32].into() };
        let macaroon = mint(b"root", &identifier, ["services=a:0"]).unwrap();
        assert_eq!(format!("{macaroon:?}"), "Macaroon { caveats: 1, .. }");
    }
}
