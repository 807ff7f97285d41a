//! Events, the one thing that relays carry (NIP-01).

use secp256k1::schnorr::Signature;
use secp256k1::{Keypair, Message, Secp256k1, SignOnly, VerifyOnly, XOnlyPublicKey};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::entropy::{SystemEntropy, random};

/// What a wallet offers: published once, kept by the relay (NIP-47).
pub(super) const INFO: u16 = 13194;
/// A call of a wallet's method, and its answer.
pub(super) const REQUEST: u16 = 23194;
pub(super) const RESPONSE: u16 = 23195;

/// A signed event.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Event {
    pub(super) id: String,
    pub(super) pubkey: String,
    pub(super) created_at: u64,
    pub(super) kind: u16,
    pub(super) tags: Vec<Vec<String>>,
    pub(super) content: String,
    sig: String,
}

impl Event {
    pub(super) fn sign(
        keys: &Keypair,
        created_at: u64,
        kind: u16,
        tags: Vec<Vec<String>>,
        content: String,
    ) -> Self {
        let mut secp = Secp256k1::<SignOnly>::signing_only();
        secp.seeded_randomize(&random(&SystemEntropy));
        let pubkey = keys.x_only_public_key().0.to_string();
        let mut event =
            Self { id: String::new(), pubkey, created_at, kind, tags, content, sig: String::new() };
        let hash = event.hash();
        event.id = hex::encode(hash);
        let message = Message::from_digest(hash);
        event.sig = secp.sign_schnorr_with_aux_rand(&message, keys, &random(&SystemEntropy)).to_string();
        event
    }

    /// Whether it is this author's, with the id that stands in it.
    pub(super) fn is_of(&self, author: &XOnlyPublicKey) -> bool {
        let hash = self.hash();
        if self.pubkey != author.to_string() || self.id != hex::encode(hash) {
            return false;
        }
        let Ok(signature) = self.sig.parse::<Signature>() else { return false };
        let secp = Secp256k1::<VerifyOnly>::verification_only();
        secp.verify_schnorr(&signature, &Message::from_digest(hash), author).is_ok()
    }

    /// The first value of a tag.
    pub(super) fn tag(&self, name: &str) -> Option<&str> {
        let tag = self.tags.iter().find(|tag| tag.first().is_some_and(|first| first == name))?;
        tag.get(1).map(String::as_str)
    }

    fn hash(&self) -> [u8; 32] {
        let fields = (0, &self.pubkey, self.created_at, self.kind, &self.tags, &self.content);
        Sha256::digest(serde_json::to_vec(&fields).expect("strings and numbers serialize")).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signed() -> (Keypair, Event) {
        let keys = Keypair::from_seckey_slice(&Secp256k1::new(), &[7; 32]).unwrap();
        let tags = vec![vec!["p".to_owned(), "ab".repeat(32)], vec!["expiration".to_owned(), "1".to_owned()]];
        let content = "\u{8}\u{c}\n\r\t\"\\/ é \u{1f600}".to_owned();
        (keys, Event::sign(&keys, 1_900_000_000, REQUEST, tags, content))
    }

    #[test]
    fn another_implementation_verifies_an_event_and_ours_one_of_its_own() {
        let (keys, event) = signed();
        let text = serde_json::to_string(&event).unwrap();
        let read = nostr::event::Event::from_json(&text).unwrap();
        read.verify().unwrap();
        let read: Event = serde_json::from_str(&read.as_json()).unwrap();
        assert!(read.is_of(&keys.x_only_public_key().0));
        assert_eq!(read.tag("expiration"), Some("1"));
        assert_eq!(read.tag("e"), None);
    }

    #[test]
    fn an_event_that_was_changed_is_nobodys() {
        let (keys, event) = signed();
        let author = keys.x_only_public_key().0;
        assert!(event.is_of(&author));
        let other = Keypair::from_seckey_slice(&Secp256k1::new(), &[8; 32]).unwrap();
        let bends: [fn(&mut Event); 7] = [
            |event| event.content.push('x'),
            |event| event.created_at += 1,
            |event| event.kind = RESPONSE,
            |event| event.tags.clear(),
            |event| event.id = "00".repeat(32),
            |event| event.sig = "00".repeat(64),
            |event| event.sig = String::new(),
        ];
        for bend in bends {
            let mut bent = event.clone();
            bend(&mut bent);
            assert!(!bent.is_of(&author));
        }
        assert!(!event.is_of(&other.x_only_public_key().0));
    }
}
