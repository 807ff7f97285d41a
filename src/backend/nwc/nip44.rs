//! Encryption between two keys (NIP-44, version 2): a secret of both keys,
//! HKDF-SHA256 to keys of one message, padding, `ChaCha20`, and HMAC-SHA256 over
//! nonce and ciphertext.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chacha20::ChaCha20;
use chacha20::cipher::{KeyIvInit as _, StreamCipher as _};
use hmac::Mac as _;
use secp256k1::ecdh::shared_secret_point;
use secp256k1::{Parity, SecretKey, XOnlyPublicKey};
use zeroize::Zeroizing;

use crate::macaroon::{HmacSha256, keyed};

const VERSION: u8 = 2;
const NONCE: usize = 32;
const MAC: usize = 32;
/// Longest text, in bytes: its length goes before it in two.
const MAX_TEXT: usize = u16::MAX as usize;
/// Shortest and longest message, in base64.
const PAYLOAD: std::ops::RangeInclusive<usize> = 132..=87_472;

/// What two keys share.
pub(super) struct SharedKey(Zeroizing<[u8; 32]>);

impl SharedKey {
    pub(super) fn new(ours: &SecretKey, theirs: &XOnlyPublicKey) -> Self {
        let point = Zeroizing::new(shared_secret_point(&theirs.public_key(Parity::Even), ours));
        let mac = keyed(b"nip44-v2").chain_update(&point[..32]);
        Self(Zeroizing::new(mac.finalize().into_bytes().into()))
    }

    /// Encrypts a text of 1 to 65,535 bytes; `None` for any other.
    pub(super) fn encrypt(&self, text: &str, nonce: [u8; NONCE]) -> Option<String> {
        if text.is_empty() || text.len() > MAX_TEXT {
            return None;
        }
        let mut padded = Zeroizing::new(vec![0; 2 + padded_len(text.len())]);
        padded[..2].copy_from_slice(&u16::try_from(text.len()).ok()?.to_be_bytes());
        padded[2..2 + text.len()].copy_from_slice(text.as_bytes());
        let keys = self.message_keys(&nonce);
        keys.cipher().apply_keystream(&mut padded);
        let mac = keys.mac(&nonce, &padded).finalize().into_bytes();
        Some(STANDARD.encode([&[VERSION][..], &nonce, &padded, &mac].concat()))
    }

    /// Decrypts a message; `None` if it is not one of these two keys.
    pub(super) fn decrypt(&self, payload: &str) -> Option<Zeroizing<Vec<u8>>> {
        if !PAYLOAD.contains(&payload.len()) {
            return None;
        }
        let message = STANDARD.decode(payload).ok()?;
        let (nonce, rest) = message.strip_prefix(&[VERSION])?.split_first_chunk::<NONCE>()?;
        let (sealed, mac) = rest.split_last_chunk::<MAC>()?;
        let keys = self.message_keys(nonce);
        keys.mac(nonce, sealed).verify_slice(mac).ok()?;
        let mut padded = Zeroizing::new(sealed.to_vec());
        keys.cipher().apply_keystream(&mut padded);
        let (len, text) = padded.split_first_chunk::<2>()?;
        let len = usize::from(u16::from_be_bytes(*len));
        if len == 0 || text.len() != padded_len(len) {
            return None;
        }
        Some(Zeroizing::new(text[..len].to_vec()))
    }

    /// HKDF-expand (RFC 5869) to 76 bytes, with the nonce as what it is for.
    fn message_keys(&self, nonce: &[u8; NONCE]) -> MessageKeys {
        let mut keys = Zeroizing::new([0; 96]);
        let mut last = Zeroizing::new(Vec::new());
        for (block, count) in keys.chunks_exact_mut(32).zip(1_u8..) {
            let mac = keyed(&*self.0).chain_update(&*last).chain_update(nonce).chain_update([count]);
            block.copy_from_slice(&mac.finalize().into_bytes());
            *last = block.to_vec();
        }
        MessageKeys(keys)
    }
}

/// 32 bytes of `ChaCha20`'s key, 12 of its nonce, 32 of HMAC's key, and 20 that
/// are not used.
struct MessageKeys(Zeroizing<[u8; 96]>);

impl MessageKeys {
    fn cipher(&self) -> ChaCha20 {
        ChaCha20::new_from_slices(&self.0[..32], &self.0[32..44]).expect("a key of 32 bytes, a nonce of 12")
    }

    fn mac(&self, nonce: &[u8; NONCE], sealed: &[u8]) -> HmacSha256 {
        keyed(&self.0[44..76]).chain_update(nonce).chain_update(sealed)
    }
}

/// To what length a text is padded.
fn padded_len(len: usize) -> usize {
    let chunk = (len.next_power_of_two() / 8).max(32);
    len.next_multiple_of(chunk)
}

#[cfg(test)]
mod tests {
    use nostr::nips::nip44;
    use proptest::prelude::*;
    use secp256k1::{Keypair, Secp256k1};

    use super::*;

    fn pair(ours: [u8; 32], theirs: [u8; 32]) -> (SharedKey, nostr::key::SecretKey, nostr::key::PublicKey) {
        let secp = Secp256k1::new();
        let ours = Keypair::from_seckey_slice(&secp, &ours).unwrap();
        let theirs = Keypair::from_seckey_slice(&secp, &theirs).unwrap();
        let shared = SharedKey::new(&ours.secret_key(), &theirs.x_only_public_key().0);
        let their_secret = nostr::key::SecretKey::from_slice(&theirs.secret_bytes()).unwrap();
        let our_public = ours.x_only_public_key().0.to_string();
        (shared, their_secret, nostr::key::PublicKey::from_hex(&our_public).unwrap())
    }

    fn text_of(len: usize) -> String {
        (0..len).map(|i| char::from(b'a' + u8::try_from(i % 26).unwrap())).collect()
    }

    /// The first vector of the specification.
    #[test]
    fn the_vector_of_the_specification_holds() {
        let (mut one, mut two) = ([0; 32], [0; 32]);
        (one[31], two[31]) = (1, 2);
        let (shared, ..) = pair(one, two);
        assert_eq!(
            hex::encode(*shared.0),
            "c41c775356fd92eadc63ff5a0dc1da211b268cbea22316767095b2871ea1412d"
        );
        let payload = "AgAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAABee0G5VSK0/9YypIObAtDKfYEAjD35uVkHyB0F4DwrcNaCXlCWZKaArsGrY6M9wnuTMxWfp1RTN9Xga8no+kF5Vsb";
        let mut nonce = [0; 32];
        nonce[31] = 1;
        assert_eq!(shared.encrypt("a", nonce).unwrap(), payload);
        assert_eq!(&**shared.decrypt(payload).unwrap(), b"a");
    }

    #[test]
    fn another_implementation_reads_ours_at_every_step_of_the_padding() {
        let (shared, their_secret, our_public) = pair([3; 32], [4; 32]);
        let steps = [1, 2, 31, 32, 33, 64, 65, 255, 256, 257, 320, 321, 1024, 1025, 40_960, 65_535];
        for len in steps {
            let text = text_of(len);
            let payload = shared.encrypt(&text, [9; 32]).unwrap();
            assert_eq!(nip44::decrypt(&their_secret, &our_public, &payload).unwrap(), text, "{len}");
            assert_eq!(&**shared.decrypt(&payload).unwrap(), text.as_bytes(), "{len}");
        }
        for len in [0, 65_536] {
            assert!(shared.encrypt(&text_of(len), [9; 32]).is_none(), "{len}");
        }
    }

    #[test]
    fn a_message_that_was_changed_or_is_of_other_keys_is_not_read() {
        let (shared, ..) = pair([3; 32], [4; 32]);
        let (other, ..) = pair([3; 32], [5; 32]);
        let payload = shared.encrypt("paid", [9; 32]).unwrap();
        assert!(other.decrypt(&payload).is_none());
        let whole = STANDARD.decode(&payload).unwrap();
        for index in 0..whole.len() {
            let mut bent = whole.clone();
            bent[index] ^= 1;
            assert!(shared.decrypt(&STANDARD.encode(bent)).is_none(), "byte {index}");
        }
        for text in ["", "#", "not base64", &payload[4..], &"A".repeat(87_473)] {
            assert!(shared.decrypt(text).is_none());
        }
    }

    proptest! {
        #[test]
        fn ours_reads_what_another_implementation_wrote(
            ours: [u8; 32], theirs: [u8; 32], nonce: [u8; 32], text in "\\PC{1,400}",
        ) {
            prop_assume!(SecretKey::from_slice(&ours).is_ok() && SecretKey::from_slice(&theirs).is_ok());
            let (shared, their_secret, our_public) = pair(ours, theirs);
            let payload =
                nip44::encrypt_with_nonce(&their_secret, &our_public, &text, nip44::Nonce::V2(nonce)).unwrap();
            prop_assert_eq!(&**shared.decrypt(&payload).unwrap(), text.as_bytes());
            prop_assert_eq!(shared.encrypt(&text, nonce).unwrap(), payload);
        }

        #[test]
        fn no_message_panics(payload in "[A-Za-z0-9+/]{0,200}") {
            let (shared, ..) = pair([3; 32], [4; 32]);
            prop_assert!(shared.decrypt(&payload).is_none());
        }
    }
}
