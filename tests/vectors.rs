//! The macaroons of other implementations, byte for byte: every case of
//! `vectors/macaroon_v2.json`.
#![allow(missing_docs)]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use l402::macaroon::{Identifier, Macaroon, mint};
use l402::{PaymentHash, Preimage};
use serde::Deserialize;

#[derive(Deserialize)]
struct Vectors {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    root_key: String,
    preimage: String,
    payment_hash: String,
    token_id: String,
    location: String,
    caveats: Vec<String>,
    signature: String,
    macaroon_hex: String,
    macaroon_base64: String,
}

impl Case {
    fn root_key(&self) -> Vec<u8> {
        hex::decode(&self.root_key).unwrap()
    }

    fn bytes(&self) -> Vec<u8> {
        hex::decode(&self.macaroon_hex).unwrap()
    }

    fn identifier(&self) -> Identifier {
        let token_id: [u8; 32] = hex::decode(&self.token_id).unwrap().try_into().unwrap();
        Identifier { version: 0, payment_hash: self.payment_hash.parse().unwrap(), token_id: token_id.into() }
    }

    /// The bytes without the location field, which we do not write.
    fn bytes_without_location(&self) -> Vec<u8> {
        let mut bytes = self.bytes();
        assert_eq!(bytes[1], 1, "{}: the field after the version is a location", self.name);
        bytes.drain(1..3 + self.location.len());
        bytes
    }
}

fn cases() -> Vec<Case> {
    let vectors: Vectors = serde_json::from_str(include_str!("vectors/macaroon_v2.json")).unwrap();
    assert_eq!(vectors.cases.len(), 37, "every case is run");
    vectors.cases
}

fn case(name: &str) -> Case {
    cases().into_iter().find(|case| case.name == name).unwrap()
}

#[test]
fn every_case_is_decoded_into_its_parts() {
    for case in cases() {
        let (name, bytes) = (&case.name, case.bytes());
        assert_eq!(STANDARD.encode(&bytes), case.macaroon_base64, "{name}");
        let macaroon = Macaroon::decode(&bytes).unwrap_or_else(|err| panic!("{name}: {err}"));

        let identifier = macaroon.identifier();
        assert_eq!(identifier, case.identifier(), "{name}");
        assert_eq!(identifier.version, 0, "{name}");
        assert_eq!(hex::encode(identifier.to_bytes()[34..].as_ref()), case.token_id, "{name}");
        let preimage = Preimage::from_hex(&case.preimage).unwrap();
        assert_eq!(preimage.payment_hash(), identifier.payment_hash, "{name}");

        assert!(macaroon.caveats().eq(case.caveats.iter().map(String::as_bytes)), "{name}");
        assert_eq!(macaroon.caveats().len(), case.caveats.len(), "{name}");
        // The vectors write an empty location as a field of no bytes.
        assert_eq!(macaroon.location(), Some(case.location.as_bytes()), "{name}");
        assert!(case.macaroon_hex.ends_with(&case.signature), "{name}");
    }
}

#[test]
fn every_case_is_encoded_again_byte_for_byte() {
    for case in cases() {
        let bytes = case.bytes();
        let macaroon = Macaroon::decode(&bytes).unwrap();
        assert_eq!(macaroon.as_bytes(), bytes, "{}", case.name);
        assert_eq!(macaroon.into_owned().as_bytes(), bytes, "{}", case.name);
    }
}

#[test]
fn every_signature_is_verified_with_its_key_and_no_other() {
    for case in cases() {
        let (name, bytes, mut key) = (&case.name, case.bytes(), case.root_key());
        let macaroon = Macaroon::decode(&bytes).unwrap();
        assert!(macaroon.verify(&key), "{name}");
        key[0] ^= 1;
        assert!(!macaroon.verify(&key), "{name}");
        assert!(!macaroon.verify(&[]), "{name}");
    }
}

#[test]
fn every_case_is_minted_again_without_its_location() {
    for case in cases() {
        let (name, key) = (&case.name, case.root_key());
        let minted = mint(&key, &case.identifier(), &case.caveats).unwrap();
        assert_eq!(minted.location(), None, "{name}");
        assert_eq!(minted.as_bytes(), case.bytes_without_location(), "{name}");
        assert_eq!(Macaroon::decode(minted.as_bytes()).unwrap(), minted, "{name}");
    }
}

#[test]
fn every_case_is_reached_by_attenuating() {
    for case in cases() {
        let (name, key) = (&case.name, case.root_key());
        for minted in 0..=case.caveats.len() {
            let (first, later) = case.caveats.split_at(minted);
            let macaroon = mint(&key, &case.identifier(), first).unwrap();
            let grown = later.iter().fold(macaroon, |macaroon, caveat| macaroon.attenuate(caveat).unwrap());
            assert_eq!(grown.as_bytes(), case.bytes_without_location(), "{name} from {minted} caveats");
        }
    }
}

#[test]
fn the_golden_case_of_three_implementations() {
    let golden = case("aperture_golden");
    let preimage: [u8; 32] = std::array::from_fn(|i| u8::try_from(i).unwrap());
    let hash: PaymentHash =
        "630dcd2966c4336691125448bbb25b4ff412a49c732db2c8abc1b8581bd710dd".parse().unwrap();
    assert_eq!(Preimage::from_bytes(preimage).payment_hash(), hash);

    let identifier = Identifier { version: 0, payment_hash: hash, token_id: [0xaa; 32].into() };
    let caveats = ["services=svc:0", "svc_capabilities=", "svc_valid_until=2000000000"];
    let signature = "8178a6e9ba3c03eed924e6684023371c444139162f0eca83419ccf1e783e64a1";
    let minted = mint(&[0x11; 32], &identifier, caveats).unwrap();
    assert!(hex::encode(minted.as_bytes()).ends_with(signature));
    assert_eq!(minted.as_bytes(), golden.bytes_without_location());

    let bytes = golden.bytes();
    let read = Macaroon::decode(&bytes).unwrap();
    assert_eq!(read.location(), Some(&b"lsat"[..]));
    assert!(read.verify(&[0x11; 32]));
    let paid = read.attenuate(format!("preimage={}", hex::encode(preimage))).unwrap();
    let signature = "bd36d6b54bb4e7d40cfe13fe563ff96e18d5b2355e70937f7989176d1deed9ad";
    assert!(hex::encode(paid.as_bytes()).ends_with(signature));
    assert!(paid.verify(&[0x11; 32]));
    assert_eq!(paid.location(), Some(&b"lsat"[..]));
}

#[test]
fn a_location_can_be_absent_and_is_outside_the_signature() {
    for case in cases() {
        let (name, bytes) = (&case.name, case.bytes_without_location());
        let macaroon = Macaroon::decode(&bytes).unwrap();
        assert_eq!(macaroon.location(), None, "{name}");
        assert_eq!(macaroon.as_bytes(), bytes, "{name}");
        assert!(macaroon.verify(&case.root_key()), "{name}");
    }
}
