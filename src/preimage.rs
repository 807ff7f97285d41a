//! Preimage and payment hash: what a payment reveals, and its SHA-256.
//!
//! Whoever pays a Lightning invoice learns the preimage of its payment hash,
//! and nobody else but the payee knew it before (BOLT 2, BOLT 11).

use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// The SHA-256 of a [`Preimage`], as it stands in the invoice.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PaymentHash([u8; 32]);

impl PaymentHash {
    /// The payment hash of these bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl From<[u8; 32]> for PaymentHash {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl FromStr for PaymentHash {
    type Err = HexError;

    fn from_str(text: &str) -> Result<Self, HexError> {
        decode(text.as_bytes()).map(Self)
    }
}

impl fmt::Display for PaymentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for PaymentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PaymentHash({self})")
    }
}

/// The secret that a payment reveals to the payer: with the token it is the
/// credential, so it is never printed, and zeroed on drop.
#[derive(Clone)]
pub struct Preimage(Zeroizing<[u8; 32]>);

impl Preimage {
    /// The preimage of these bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Reads exactly 64 hex digits, in either case.
    ///
    /// # Errors
    /// Anything else.
    pub fn from_hex(text: impl AsRef<[u8]>) -> Result<Self, HexError> {
        decode(text.as_ref()).map(Self::from_bytes)
    }

    /// 64 hex digits, to put behind the token of a credential. Do not log them.
    pub fn to_hex(&self) -> String {
        hex::encode(*self.0)
    }

    /// The hash that an invoice with this preimage carries.
    pub fn payment_hash(&self) -> PaymentHash {
        PaymentHash(Sha256::digest(*self.0).into())
    }
}

impl fmt::Debug for Preimage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Preimage([redacted])")
    }
}

/// The text is not exactly 64 hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected exactly 64 hex digits")]
pub struct HexError;

fn decode(text: &[u8]) -> Result<[u8; 32], HexError> {
    let mut bytes = [0; 32];
    hex::decode_to_slice(text, &mut bytes).map_err(|_| HexError)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_golden_preimage_has_the_golden_hash() {
        let preimage =
            Preimage::from_hex("000102030405060708090A0b0c0d0e0f101112131415161718191a1b1c1d1e1f").unwrap();
        let hash: PaymentHash =
            "630dcd2966c4336691125448bbb25b4ff412a49c732db2c8abc1b8581bd710dd".parse().unwrap();
        assert_eq!(preimage.payment_hash(), hash);
    }

    #[test]
    fn only_64_hex_digits_are_a_preimage() {
        for text in [
            "",
            "00",
            &"0".repeat(62),
            &"0".repeat(63),
            &"0".repeat(66),
            &"g".repeat(64),
            &format!(" {}", "0".repeat(63)),
        ] {
            assert_eq!(Preimage::from_hex(text).unwrap_err(), HexError, "{text:?}");
        }
    }

    #[test]
    fn a_preimage_is_not_printed() {
        assert_eq!(format!("{:?}", Preimage::from_bytes([7; 32])), "Preimage([redacted])");
    }
}
