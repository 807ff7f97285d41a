//! The cryptography of one admission, written inline: what no implementation
//! does without, and what the figures are compared with.

use std::hint::black_box;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use l402::macaroon::Macaroon;
use l402::{Access, DevBackend, Gate, Issuer, KeyRing, MINUTE, MemoryLedger, Network, Offer, Price, RootKey};
use sha2::{Digest, Sha256};

type HmacSha256 = Hmac<Sha256>;

const MASTER: [u8; 32] = [7; 32];

/// An issuer of its own for every gate, all with one key.
pub(crate) fn gate(access: Access) -> Gate {
    let keys = KeyRing::new(RootKey::new(MASTER).expect("32 bytes"));
    let issuer = Issuer::builder(keys, DevBackend::new())
        .with_network(Network::Regtest)
        .with_ledger(MemoryLedger::new())
        // One that is measured asks more often than any client.
        .with_server_challenges(u64::MAX, MINUTE)
        .build()
        .expect("the backend's network");
    Gate::new(&issuer, "forecast", Offer::new(Price::sat(21), access)).expect("a first gate")
}

/// A credential that the gate admits, as text.
pub(crate) fn credential(gate: &Gate) -> String {
    gate.test_credential().to_str().expect("ASCII").to_owned()
}

/// A credential, taken apart beforehand.
#[derive(Clone)]
pub(crate) struct Token {
    pub base64: String,
    pub(crate) hex: String,
    pub(crate) identifier: Vec<u8>,
    pub(crate) caveats: Vec<Vec<u8>>,
    signature: [u8; 32],
}

impl Token {
    pub(crate) fn new(credential: &str) -> Self {
        let (base64, hex) = credential["L402 ".len()..].split_once(':').expect("token:preimage");
        let bytes = STANDARD.decode(base64).expect("base64");
        let macaroon = Macaroon::decode(&bytes).expect("a macaroon");
        let caveats: Vec<_> = macaroon.caveats().map(<[u8]>::to_vec).collect();
        assert_eq!(caveats.len(), 4, "a pass has four caveats");
        Self {
            base64: base64.to_owned(),
            hex: hex.to_owned(),
            identifier: macaroon.identifier().to_bytes().to_vec(),
            caveats,
            signature: bytes[bytes.len() - 32..].try_into().expect("32 bytes"),
        }
    }
}

pub(crate) fn keyed(key: &[u8]) -> HmacSha256 {
    HmacSha256::new_from_slice(key).expect("any length")
}

pub(crate) fn hmac(mut mac: HmacSha256, message: &[u8]) -> [u8; 32] {
    mac.update(message);
    mac.finalize().into_bytes().into()
}

/// The keyed states that a server has ready: of root keys, and of the
/// generator that turns them into keys of chains.
pub(crate) fn prepared() -> (HmacSha256, HmacSha256) {
    let mut root = keyed(&MASTER);
    root.update(b"l402/root/v1");
    root.update(b"regtest");
    (root, keyed(b"macaroons-key-generator\0\0\0\0\0\0\0\0\0"))
}

/// Base64 and hex of the credential, root key, key generator, chain and hash
/// of the preimage, and nothing else: no allocation, and no parsing, for where
/// things stand is known.
pub(crate) fn floor(token: &Token) -> impl Fn() + Clone + use<> {
    let (root, generator) = prepared();
    let (token, payment_hash) = (token.clone(), token.identifier[2..34].to_vec());
    move || {
        let (mut bytes, mut preimage) = ([0; 512], [0; 32]);
        STANDARD.decode_slice(black_box(&token.base64), &mut bytes).expect("base64");
        hex::decode_to_slice(black_box(&token.hex), &mut preimage).expect("hex");
        let key = hmac(root.clone(), black_box(&token.identifier));
        let mut signature = hmac(keyed(&hmac(generator.clone(), &key)), black_box(&token.identifier));
        for caveat in &token.caveats {
            signature = hmac(keyed(&signature), black_box(caveat));
        }
        let hash: [u8; 32] = Sha256::digest(preimage).into();
        assert!(signature == token.signature && hash[..] == payment_hash[..], "the token is valid");
        black_box(&bytes);
    }
}
