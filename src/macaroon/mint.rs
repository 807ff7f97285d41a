//! Making macaroons: the server mints, the holder attenuates.

use std::borrow::Cow;

use super::format::{self, TRAILER};
use super::verify::{Chain, root_to_key};
use super::{DecodeError, IDENTIFIER_LEN, Identifier, Macaroon, SIGNATURE_LEN};

/// Why a macaroon could not be made: its caveats are over a cap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("macaroon with these caveats cannot be made")]
pub struct MintError(#[source] DecodeError);

/// Makes a macaroon without a location.
///
/// `root_key` belongs to this identifier alone: two macaroons with one root
/// key can be told apart by nobody.
///
/// # Errors
/// A caveat, their number or the whole is over its cap.
pub fn mint<C: AsRef<[u8]>>(
    root_key: &[u8],
    identifier: &Identifier,
    caveats: impl IntoIterator<Item = C>,
) -> Result<Macaroon<'static>, MintError> {
    let identifier: [u8; IDENTIFIER_LEN] = identifier.to_bytes();
    let mut out = format::begin(&identifier);
    let mut chain = Chain::start(&root_to_key(root_key), &identifier);
    for caveat in caveats {
        format::push_identifier(&mut out, caveat.as_ref());
        chain.add(caveat.as_ref());
    }
    finish(out, &chain)
}

impl Macaroon<'_> {
    /// This macaroon with one more caveat: valid wherever both this one and
    /// the caveat hold, and nowhere else.
    ///
    /// ```
    /// # use l402::macaroon::{Identifier, mint};
    /// # let identifier = Identifier { version: 0, payment_hash: [7; 32].into(), token_id: [1; 32].into() };
    /// # let mine = mint(b"root", &identifier, ["services=forecast:0"])?;
    /// let for_my_helper = mine.attenuate("forecast_valid_until=1900000000")?;
    /// # Ok::<(), l402::macaroon::MintError>(())
    /// ```
    ///
    /// # Errors
    /// The caveat, their number or the whole would be over its cap.
    pub fn attenuate(&self, caveat: impl AsRef<[u8]>) -> Result<Macaroon<'static>, MintError> {
        let end = self.bytes.len() - SIGNATURE_LEN - TRAILER.len();
        let mut out = self.bytes[..end].to_vec();
        format::push_identifier(&mut out, caveat.as_ref());
        let mut chain = Chain::resume(self.signature());
        chain.add(caveat.as_ref());
        finish(out, &chain)
    }
}

fn finish(mut out: Vec<u8>, chain: &Chain) -> Result<Macaroon<'static>, MintError> {
    out.extend_from_slice(&TRAILER);
    out.extend_from_slice(chain.signature());
    format::decode(Cow::Owned(out)).map_err(MintError)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::macaroon::{MAX_CAVEAT, MAX_CAVEATS};

    const IDENTIFIER: Identifier = Identifier {
        version: 0,
        payment_hash: crate::preimage::PaymentHash::from_bytes([7; 32]),
        token_id: super::super::TokenId([1; 32]),
    };

    #[test]
    fn minting_and_attenuating_end_at_the_same_bytes() {
        let whole = mint(b"root", &IDENTIFIER, ["a=1", "b=2"]).unwrap();
        let grown = mint(b"root", &IDENTIFIER, ["a=1"]).unwrap().attenuate("b=2").unwrap();
        assert_eq!(whole, grown);
    }

    #[test]
    fn attenuating_keeps_the_location() {
        let mut bytes = mint(b"root", &IDENTIFIER, ["a=1"]).unwrap().as_bytes().to_vec();
        bytes.splice(1..1, [1, 4, b'l', b's', b'a', b't']);
        let weaker = Macaroon::decode(&bytes).unwrap().attenuate("b=2").unwrap();
        assert_eq!(weaker.location(), Some(&b"lsat"[..]));
        assert!(weaker.verify(b"root"));
    }

    #[test]
    fn caps_hold_when_minting() {
        assert!(mint(b"root", &IDENTIFIER, ["x".repeat(MAX_CAVEAT + 1)]).is_err());
        assert!(mint(b"root", &IDENTIFIER, ["x"; MAX_CAVEATS + 1]).is_err());
        assert!(mint(b"root", &IDENTIFIER, vec!["x".repeat(MAX_CAVEAT); 8]).is_err());
    }
}
