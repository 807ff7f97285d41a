//! The V2 binary format, read and written in one canonical way.
//!
//! ```text
//! macaroon = 02 [location] identifier 00 *( caveat ) 00 signature
//! caveat   = identifier 00
//! location   = 01 length bytes
//! identifier = 02 length bytes
//! signature  = 06 20 32 bytes
//! length     = unsigned LEB128, in its shortest form
//! ```
//!
//! Fields stand in this order and nothing follows the signature, so a
//! macaroon has one encoding and the bytes read are the bytes kept.

use std::borrow::Cow;

use super::{IDENTIFIER_LEN, MAX_CAVEAT, MAX_CAVEATS, MAX_MACAROON, Macaroon, SIGNATURE_LEN, Span};

const VERSION: u8 = 2;
const END: u8 = 0;
const LOCATION: u8 = 1;
const IDENTIFIER: u8 = 2;
const SIGNATURE: u8 = 6;

/// What follows the last caveat, without the signature itself.
pub(super) const TRAILER: [u8; 3] = [END, SIGNATURE, 32];

/// Why bytes are not an L402 macaroon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Longer than [`MAX_MACAROON`].
    #[error("macaroon is longer than {MAX_MACAROON} bytes")]
    TooLong,
    /// The first byte is not 2.
    #[error("not a version 2 binary macaroon")]
    Version,
    /// The bytes end inside a field.
    #[error("macaroon ends early")]
    Truncated,
    /// A field stands where another belongs.
    #[error("macaroon has an unexpected field")]
    UnexpectedField,
    /// A length that is not in its shortest form, or beyond any cap.
    #[error("macaroon has an invalid length")]
    Length,
    /// The identifier is not 66 bytes long.
    #[error("macaroon identifier is not {IDENTIFIER_LEN} bytes")]
    Identifier,
    /// A caveat that another service would have to discharge.
    #[error("third-party caveats are not supported")]
    ThirdParty,
    /// More than [`MAX_CAVEATS`].
    #[error("macaroon has more than {MAX_CAVEATS} caveats")]
    TooManyCaveats,
    /// A caveat longer than [`MAX_CAVEAT`].
    #[error("caveat is longer than {MAX_CAVEAT} bytes")]
    CaveatTooLong,
    /// Bytes after the signature.
    #[error("macaroon has trailing bytes")]
    TrailingBytes,
}

struct Reader<'b> {
    bytes: &'b [u8],
    at: usize,
}

impl Reader<'_> {
    fn byte(&mut self) -> Result<u8, DecodeError> {
        let byte = *self.bytes.get(self.at).ok_or(DecodeError::Truncated)?;
        self.at += 1;
        Ok(byte)
    }

    fn length(&mut self) -> Result<usize, DecodeError> {
        let low = self.byte()?;
        if low < 0x80 {
            return Ok(usize::from(low));
        }
        // Two bytes reach 16,383, beyond the longest macaroon.
        let high = self.byte()?;
        if high == 0 || high >= 0x80 {
            return Err(DecodeError::Length);
        }
        Ok(usize::from(low & 0x7f) | usize::from(high) << 7)
    }

    fn data(&mut self) -> Result<Span, DecodeError> {
        let len = self.length()?;
        let start = self.at;
        if self.bytes.len() - start < len {
            return Err(DecodeError::Truncated);
        }
        self.at += len;
        let part = |n: usize| u16::try_from(n).map_err(|_| DecodeError::TooLong);
        Ok(Span { start: part(start)?, len: part(len)? })
    }

    fn expect(&mut self, field: u8) -> Result<(), DecodeError> {
        if self.byte()? == field { Ok(()) } else { Err(DecodeError::UnexpectedField) }
    }
}

pub(super) fn decode(bytes: Cow<'_, [u8]>) -> Result<Macaroon<'_>, DecodeError> {
    if bytes.len() > MAX_MACAROON {
        return Err(DecodeError::TooLong);
    }
    let mut reader = Reader { bytes: &bytes, at: 0 };
    if reader.byte()? != VERSION {
        return Err(DecodeError::Version);
    }

    let mut field = reader.byte()?;
    let mut location = None;
    if field == LOCATION {
        location = Some(reader.data()?);
        field = reader.byte()?;
    }
    if field != IDENTIFIER {
        return Err(DecodeError::UnexpectedField);
    }
    let identifier = reader.data()?;
    if usize::from(identifier.len) != IDENTIFIER_LEN {
        return Err(DecodeError::Identifier);
    }
    reader.expect(END)?;

    let mut caveats = [Span::default(); MAX_CAVEATS];
    let mut count = 0;
    loop {
        match reader.byte()? {
            END => break,
            IDENTIFIER => {}
            LOCATION => return Err(DecodeError::ThirdParty),
            _ => return Err(DecodeError::UnexpectedField),
        }
        let caveat = reader.data()?;
        if usize::from(caveat.len) > MAX_CAVEAT {
            return Err(DecodeError::CaveatTooLong);
        }
        match reader.byte()? {
            END => {}
            4 => return Err(DecodeError::ThirdParty),
            _ => return Err(DecodeError::UnexpectedField),
        }
        *caveats.get_mut(count).ok_or(DecodeError::TooManyCaveats)? = caveat;
        count += 1;
    }

    reader.expect(SIGNATURE)?;
    if usize::from(reader.data()?.len) != SIGNATURE_LEN {
        return Err(DecodeError::Length);
    }
    if reader.at != bytes.len() {
        return Err(DecodeError::TrailingBytes);
    }
    let caveat_count = u8::try_from(count).expect("32 caveats at most");
    Ok(Macaroon { bytes, location, identifier, caveats, caveat_count })
}

/// Starts a macaroon without a location.
pub(super) fn begin(identifier: &[u8; IDENTIFIER_LEN]) -> Vec<u8> {
    let mut out = vec![VERSION];
    push_identifier(&mut out, identifier);
    out
}

/// Appends a field of type identifier and the end of its section.
pub(super) fn push_identifier(out: &mut Vec<u8>, data: &[u8]) {
    out.push(IDENTIFIER);
    let mut len = data.len();
    while len >= 0x80 {
        out.push(0x80 | u8::try_from(len & 0x7f).expect("7 bits"));
        len >>= 7;
    }
    out.push(u8::try_from(len).expect("7 bits"));
    out.extend_from_slice(data);
    out.push(END);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::macaroon::{Identifier, mint};

    fn minted() -> Vec<u8> {
        let identifier = Identifier { version: 0, payment_hash: [7; 32].into(), token_id: [1; 32].into() };
        mint(b"root", &identifier, ["services=a:0", &"x".repeat(MAX_CAVEAT)]).unwrap().as_bytes().to_vec()
    }

    #[test]
    fn a_macaroon_cut_anywhere_is_refused() {
        let whole = minted();
        assert!(Macaroon::decode(&whole).is_ok());
        for len in 0..whole.len() {
            assert!(Macaroon::decode(&whole[..len]).is_err(), "{len}");
        }
    }

    #[test]
    fn what_is_not_canonical_is_refused() {
        let whole = minted();
        let edit = |edit: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = whole.clone();
            edit(&mut bytes);
            Macaroon::decode(&bytes).map(|_| ()).unwrap_err()
        };
        assert_eq!(edit(&|b| b[0] = 1), DecodeError::Version);
        assert_eq!(edit(&|b| b.push(0)), DecodeError::TrailingBytes);
        assert_eq!(edit(&|b| drop(b.splice(2..3, [0xc2, 0]))), DecodeError::Length);
        assert_eq!(edit(&|b| b[2] = 65), DecodeError::Identifier);
        assert_eq!(edit(&|b| b[1] = 3), DecodeError::UnexpectedField);
        assert_eq!(edit(&|b| b[70] = 1), DecodeError::ThirdParty);
        assert_eq!(edit(&|b| b.resize(MAX_MACAROON + 1, 0)), DecodeError::TooLong);
    }

    #[test]
    fn third_party_caveats_are_refused() {
        let mut bytes = minted();
        let end = bytes.len() - SIGNATURE_LEN - TRAILER.len();
        bytes.splice(end..end, [IDENTIFIER, 1, b'x', 4, 1, b'v', END]);
        assert_eq!(Macaroon::decode(&bytes).unwrap_err(), DecodeError::ThirdParty);
    }

    #[test]
    fn the_33rd_caveat_is_refused() {
        let mut bytes = minted();
        let end = bytes.len() - SIGNATURE_LEN - TRAILER.len();
        bytes.splice(end..end, [IDENTIFIER, 1, b'x', END].repeat(MAX_CAVEATS - 1));
        assert_eq!(Macaroon::decode(&bytes).unwrap_err(), DecodeError::TooManyCaveats);
    }

    #[test]
    fn an_empty_location_is_not_the_same_as_none() {
        let mut bytes = minted();
        assert_eq!(Macaroon::decode(&bytes).unwrap().location(), None);
        bytes.splice(1..1, [LOCATION, 0]);
        assert_eq!(Macaroon::decode(&bytes).unwrap().location(), Some(&[][..]));
    }
}
