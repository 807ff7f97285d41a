//! Two implementations of one format: see the crate's documentation.

use std::cell::RefCell;
use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use l402::macaroon::{DecodeError, Identifier, MAX_CAVEAT, MAX_CAVEATS, MAX_MACAROON, Macaroon, mint};
use macaroon::{Caveat, Format, MacaroonKey, Verifier};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

/// Most bytes that the oracle is given: it recurses once for each field.
const MAX_INPUT: usize = 8 * 1024;
const IDENTIFIER_LEN: usize = l402::macaroon::IDENTIFIER_LEN;

/// A runner that does the same in every run.
fn runner(cases: u32) -> TestRunner {
    macaroon::initialize().unwrap();
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha))
}

/// What a macaroon is made of.
#[derive(Clone, Debug)]
struct Parts {
    root_key: Vec<u8>,
    location: Option<String>,
    identifier: [u8; IDENTIFIER_LEN],
    caveats: Vec<String>,
}

fn parts() -> impl Strategy<Value = Parts> {
    let caveat = prop_oneof![
        4 => "[a-z_]{0,12}=.{0,30}",
        2 => ".{0,60}",
        1 => Just(String::new()),
        // Around the lengths that take a second byte to say.
        1 => "[ -~]{120,140}",
        1 => "[ -~]{400,450}",
    ];
    let identifier = vec(any::<u8>(), IDENTIFIER_LEN).prop_map(|bytes| bytes.try_into().unwrap());
    (vec(any::<u8>(), 0..100), proptest::option::of(".{0,40}"), identifier, vec(caveat, 0..=8)).prop_map(
        |(root_key, location, identifier, caveats)| Parts { root_key, location, identifier, caveats },
    )
}

impl Parts {
    fn identifier(&self) -> Identifier {
        let part = |from: usize| <[u8; 32]>::try_from(&self.identifier[from..from + 32]).unwrap();
        Identifier {
            version: u16::from_be_bytes([self.identifier[0], self.identifier[1]]),
            payment_hash: part(2).into(),
            token_id: part(34).into(),
        }
    }

    fn key(&self) -> MacaroonKey {
        MacaroonKey::generate(&self.root_key)
    }

    /// This macaroon, made by the oracle.
    fn theirs(&self) -> macaroon::Macaroon {
        let identifier = self.identifier.to_vec().into();
        let mut theirs = macaroon::Macaroon::create(self.location.clone(), &self.key(), identifier).unwrap();
        for caveat in &self.caveats {
            theirs.add_first_party_caveat(caveat.as_str().into());
        }
        theirs
    }
}

fn binary(theirs: &macaroon::Macaroon, format: Format) -> Vec<u8> {
    URL_SAFE.decode(theirs.serialize(format).unwrap()).unwrap()
}

/// The oracle's word on the signature: caveats hold, whatever they say.
fn theirs_verifies(theirs: &macaroon::Macaroon, root_key: &[u8]) -> bool {
    let mut verifier = Verifier::default();
    verifier.satisfy_general(|_| true);
    verifier.verify(theirs, &MacaroonKey::generate(root_key), Vec::new()).is_ok()
}

fn their_caveats(theirs: &macaroon::Macaroon) -> Option<Vec<Vec<u8>>> {
    let predicate = |caveat: &Caveat| match caveat {
        Caveat::FirstParty(caveat) => Some(caveat.predicate().0),
        Caveat::ThirdParty(_) => None,
    };
    theirs.caveats().iter().map(predicate).collect()
}

/// Both decoded the same bytes: they have to have read the same.
fn assert_same(bytes: &[u8], ours: &Macaroon<'_>, theirs: &macaroon::Macaroon) -> Result<(), TestCaseError> {
    prop_assert_eq!(&ours.identifier().to_bytes()[..], &theirs.identifier().0[..]);
    let location = theirs.location();
    prop_assert_eq!(ours.location(), location.as_deref().map(str::as_bytes));
    let caveats: Vec<_> = ours.caveats().map(<[u8]>::to_vec).collect();
    prop_assert_eq!(Some(caveats), their_caveats(theirs));
    prop_assert_eq!(&bytes[bytes.len() - 32..], &theirs.signature()[..]);
    prop_assert_eq!(bytes, &binary(theirs, Format::V2)[..]);
    Ok(())
}

#[test]
fn what_we_mint_the_oracle_reads_and_verifies() {
    runner(2_000)
        .run(&(parts(), ".{0,30}"), |(parts, more)| {
            let minted = mint(&parts.root_key, &parts.identifier(), &parts.caveats).unwrap();
            for ours in [minted.attenuate(&more).unwrap(), minted] {
                let theirs = macaroon::Macaroon::deserialize_binary(ours.as_bytes()).unwrap();
                assert_same(ours.as_bytes(), &ours, &theirs)?;
                prop_assert!(theirs_verifies(&theirs, &parts.root_key));
                let other_key = [&parts.root_key[..], b"x"].concat();
                prop_assert!(!theirs_verifies(&theirs, &other_key));
                prop_assert!(!ours.verify(&other_key));
            }
            Ok(())
        })
        .unwrap();
}

#[test]
fn what_the_oracle_mints_we_read_and_verify() {
    runner(2_000)
        .run(&(parts(), ".{0,30}"), |(parts, more)| {
            let mut theirs = parts.theirs();
            for _ in 0..2 {
                let bytes = binary(&theirs, Format::V2);
                let ours = Macaroon::decode(&bytes).unwrap();
                prop_assert_eq!(ours.identifier(), parts.identifier());
                assert_same(&bytes, &ours, &theirs)?;
                prop_assert!(ours.verify(&parts.root_key));
                prop_assert!(!ours.verify(&[&parts.root_key[..], b"x"].concat()));

                // Both narrow it to the same bytes.
                let narrowed = ours.attenuate(&more).unwrap();
                theirs.add_first_party_caveat(more.as_str().into());
                prop_assert_eq!(narrowed.as_bytes(), &binary(&theirs, Format::V2)[..]);
            }
            Ok(())
        })
        .unwrap();
}

/// A macaroon in V2, well formed but for what its knobs say.
#[derive(Clone, Debug)]
struct Sketch {
    location: Option<Vec<u8>>,
    identifier: Vec<u8>,
    caveats: Vec<SketchedCaveat>,
    signature: Vec<u8>,
    /// Bytes by which each length is longer than it has to be, in turn.
    padding: Vec<usize>,
    trailing: Vec<u8>,
}

#[derive(Clone, Debug)]
enum SketchedCaveat {
    FirstParty(Vec<u8>),
    ThirdParty { location: String, identifier: Vec<u8>, vid: Vec<u8> },
}

fn sketch() -> impl Strategy<Value = Sketch> {
    let bytes = |len| vec(any::<u8>(), len);
    let location = prop_oneof![
        4 => Just(None),
        2 => ".{0,20}".prop_map(|text| Some(text.into_bytes())),
        1 => bytes(0..8).prop_map(Some),
    ];
    let identifier = prop_oneof![9 => bytes(66..67), 1 => bytes(0..140)];
    let first_party = prop_oneof![
        12 => bytes(0..40),
        1 => bytes(126..130),
        1 => bytes(500..530),
    ]
    .prop_map(SketchedCaveat::FirstParty);
    let third_party = (".{0,20}", bytes(0..20), bytes(0..80))
        .prop_map(|(location, identifier, vid)| SketchedCaveat::ThirdParty { location, identifier, vid });
    let any_caveats = vec(prop_oneof![20 => first_party.clone(), 1 => third_party], 0..6);
    let many_caveats = vec(bytes(0..6).prop_map(SketchedCaveat::FirstParty), 28..40);
    let long_caveats = vec(bytes(300..512).prop_map(SketchedCaveat::FirstParty), 8..14);
    let caveats = prop_oneof![16 => any_caveats, 1 => many_caveats, 1 => long_caveats];
    let signature = prop_oneof![20 => bytes(32..33), 1 => bytes(30..35)];
    let padding = prop_oneof![8 => Just(Vec::new()), 1 => vec(0..4_usize, 1..6)];
    let trailing = prop_oneof![12 => Just(Vec::new()), 1 => bytes(1..5)];
    (location, identifier, caveats, signature, padding, trailing).prop_map(
        |(location, identifier, caveats, signature, padding, trailing)| Sketch {
            location,
            identifier,
            caveats,
            signature,
            padding,
            trailing,
        },
    )
}

impl Sketch {
    fn bytes(&self) -> Vec<u8> {
        let mut padding = self.padding.iter().copied().cycle();
        let mut out = vec![2];
        let mut field = |out: &mut Vec<u8>, tag: u8, data: &[u8]| {
            out.push(tag);
            let mut len = data.len();
            let mut pad = padding.next().unwrap_or_default();
            while len >= 0x80 || pad > 0 {
                if len < 0x80 {
                    pad -= 1;
                }
                out.push(0x80 | u8::try_from(len & 0x7f).unwrap());
                len >>= 7;
            }
            out.push(u8::try_from(len).unwrap());
            out.extend_from_slice(data);
        };
        if let Some(location) = &self.location {
            field(&mut out, 1, location);
        }
        field(&mut out, 2, &self.identifier);
        out.push(0);
        for caveat in &self.caveats {
            match caveat {
                SketchedCaveat::FirstParty(identifier) => field(&mut out, 2, identifier),
                SketchedCaveat::ThirdParty { location, identifier, vid } => {
                    field(&mut out, 1, location.as_bytes());
                    field(&mut out, 2, identifier);
                    field(&mut out, 4, vid);
                }
            }
            out.push(0);
        }
        out.push(0);
        field(&mut out, 6, &self.signature);
        out.extend_from_slice(&self.trailing);
        out
    }
}

/// One piece of damage.
#[derive(Clone, Debug)]
enum Damage {
    FlipBit(Index, u8),
    Set(Index, u8),
    Insert(Index, Vec<u8>),
    Remove(Index, usize),
    Truncate(Index),
    Repeat(Index, usize),
}

fn damage() -> impl Strategy<Value = Damage> {
    let at = any::<Index>;
    // The bytes that mean something, more often than the others.
    let byte = || prop_oneof![select(vec![0_u8, 1, 2, 4, 6, 32, 66, 0x80, 0xff]), any::<u8>()];
    prop_oneof![
        (at(), 0..8_u8).prop_map(|(at, bit)| Damage::FlipBit(at, bit)),
        (at(), byte()).prop_map(|(at, byte)| Damage::Set(at, byte)),
        (at(), vec(byte(), 1..4)).prop_map(|(at, bytes)| Damage::Insert(at, bytes)),
        (at(), 1..6_usize).prop_map(|(at, len)| Damage::Remove(at, len)),
        at().prop_map(Damage::Truncate),
        (at(), 1..80_usize).prop_map(|(at, len)| Damage::Repeat(at, len)),
    ]
}

impl Damage {
    fn apply(&self, bytes: &mut Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        let len = bytes.len();
        match self {
            Self::FlipBit(at, bit) => bytes[at.index(len)] ^= 1 << bit,
            Self::Set(at, byte) => bytes[at.index(len)] = *byte,
            Self::Insert(at, more) => drop(bytes.splice(at.index(len)..at.index(len), more.iter().copied())),
            Self::Remove(at, n) => drop(bytes.drain(at.index(len)..(at.index(len) + n).min(len))),
            Self::Truncate(at) => bytes.truncate(at.index(len)),
            Self::Repeat(at, n) => {
                let piece = bytes[at.index(len)..(at.index(len) + n).min(len)].to_vec();
                bytes.splice(at.index(len)..at.index(len), piece);
            }
        }
    }
}

fn input() -> impl Strategy<Value = Vec<u8>> {
    let noise = vec(any::<u8>(), 0..300);
    let noise_in_v2 = vec(any::<u8>(), 0..300).prop_map(|mut bytes| {
        bytes.insert(0, 2);
        bytes
    });
    let sketched = sketch().prop_map(|sketch| sketch.bytes());
    let first_format = parts().prop_map(|parts| binary(&parts.theirs(), Format::V1));
    let whole = prop_oneof![1 => noise, 1 => noise_in_v2, 16 => sketched, 2 => first_format];
    let damages = prop_oneof![1 => Just(Vec::new()), 1 => vec(damage(), 1..4)];
    (whole, damages).prop_map(|(mut bytes, damages)| {
        for damage in &damages {
            damage.apply(&mut bytes);
        }
        bytes.truncate(MAX_INPUT);
        bytes
    })
}

/// Walks the fields of V2 bytes that the oracle has read: whether any length is
/// longer than it has to be, and where the signature ends.
fn walk(bytes: &[u8]) -> (bool, usize) {
    let (mut at, mut padded) = (1, false);
    loop {
        let tag = bytes[at];
        at += 1;
        if tag == 0 {
            continue;
        }
        let (mut len, mut shift, start) = (0, 0, at);
        loop {
            let byte = bytes[at];
            at += 1;
            len |= usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte < 0x80 {
                padded |= byte == 0 && at - start > 1;
                break;
            }
        }
        at += len;
        if tag == 6 {
            return (padded, at);
        }
    }
}

// The classes of disagreement.

fn oracle_reads_other_formats(bytes: &[u8], _: &macaroon::Macaroon) -> bool {
    bytes[0] != 2
}

fn ours_caps_the_size(bytes: &[u8], _: &macaroon::Macaroon) -> bool {
    bytes.len() > MAX_MACAROON
}

fn ours_wants_an_identifier_of_66_bytes(_: &[u8], theirs: &macaroon::Macaroon) -> bool {
    theirs.identifier().0.len() != IDENTIFIER_LEN
}

fn ours_refuses_third_party_caveats(_: &[u8], theirs: &macaroon::Macaroon) -> bool {
    !theirs.third_party_caveats().is_empty()
}

fn ours_caps_the_number_of_caveats(_: &[u8], theirs: &macaroon::Macaroon) -> bool {
    theirs.caveats().len() > MAX_CAVEATS
}

fn ours_caps_the_length_of_a_caveat(_: &[u8], theirs: &macaroon::Macaroon) -> bool {
    theirs
        .caveats()
        .iter()
        .any(|caveat| matches!(caveat, Caveat::FirstParty(caveat) if caveat.predicate().0.len() > MAX_CAVEAT))
}

fn oracle_accepts_non_minimal_varint(bytes: &[u8], _: &macaroon::Macaroon) -> bool {
    walk(bytes).0
}

fn oracle_ignores_trailing_bytes(bytes: &[u8], _: &macaroon::Macaroon) -> bool {
    walk(bytes).1 < bytes.len()
}

fn oracle_wants_a_utf8_location(ours: &Macaroon<'_>) -> bool {
    ours.location().is_some_and(|location| std::str::from_utf8(location).is_err())
}

type Class = (&'static str, fn(&[u8], &macaroon::Macaroon) -> bool);

/// The class that our refusal of what the oracle reads would belong to.
fn class_of(refusal: DecodeError) -> Option<Class> {
    Some(match refusal {
        DecodeError::Version => ("oracle_reads_other_formats", oracle_reads_other_formats),
        DecodeError::TooLong => ("ours_caps_the_size", ours_caps_the_size),
        DecodeError::Identifier => {
            ("ours_wants_an_identifier_of_66_bytes", ours_wants_an_identifier_of_66_bytes)
        }
        DecodeError::ThirdParty => ("ours_refuses_third_party_caveats", ours_refuses_third_party_caveats),
        DecodeError::TooManyCaveats => ("ours_caps_the_number_of_caveats", ours_caps_the_number_of_caveats),
        DecodeError::CaveatTooLong => ("ours_caps_the_length_of_a_caveat", ours_caps_the_length_of_a_caveat),
        DecodeError::Length => ("oracle_accepts_non_minimal_varint", oracle_accepts_non_minimal_varint),
        DecodeError::TrailingBytes => ("oracle_ignores_trailing_bytes", oracle_ignores_trailing_bytes),
        // A field that is missing or out of place is refused by both.
        _ => return None,
    })
}

/// All of them, and what both agree on: each has to occur.
const OUTCOMES: [&str; 11] = [
    "both_read_the_same",
    "both_refuse",
    "oracle_accepts_non_minimal_varint",
    "oracle_ignores_trailing_bytes",
    "oracle_reads_other_formats",
    "oracle_wants_a_utf8_location",
    "ours_caps_the_length_of_a_caveat",
    "ours_caps_the_number_of_caveats",
    "ours_caps_the_size",
    "ours_refuses_third_party_caveats",
    "ours_wants_an_identifier_of_66_bytes",
];

fn compare(bytes: &[u8]) -> Result<&'static str, TestCaseError> {
    let ours = Macaroon::decode(bytes);
    let theirs = macaroon::Macaroon::deserialize_binary(bytes);
    match (&ours, &theirs) {
        (Err(_), Err(_)) => Ok("both_refuse"),
        (Ok(ours), Ok(theirs)) => {
            assert_same(bytes, ours, theirs)?;
            for key in [&b""[..], b"root"] {
                prop_assert_eq!(ours.verify(key), theirs_verifies(theirs, key));
            }
            Ok("both_read_the_same")
        }
        (Ok(ours), Err(_)) => {
            prop_assert!(oracle_wants_a_utf8_location(ours), "only we read {bytes:02x?}");
            Ok("oracle_wants_a_utf8_location")
        }
        (Err(refusal), Ok(theirs)) => {
            let Some((name, holds)) = class_of(*refusal) else {
                return Err(TestCaseError::fail(format!("only the oracle reads {bytes:02x?}: {refusal}")));
            };
            prop_assert!(holds(bytes, theirs), "refused with `{refusal}`, which is not so: {bytes:02x?}");
            Ok(name)
        }
    }
}

#[test]
fn on_any_bytes_we_disagree_in_named_classes_alone() {
    let counts = RefCell::new(BTreeMap::from(OUTCOMES.map(|name| (name, 0_u32))));
    runner(60_000)
        .run(&input(), |bytes| {
            let outcome = compare(&bytes)?;
            *counts.borrow_mut().get_mut(outcome).expect("outcomes are listed") += 1;
            Ok(())
        })
        .unwrap();
    let counts = counts.into_inner();
    println!("{counts:#?}");
    for (name, count) in counts {
        assert!(count > 0, "{name} did not occur: its generator is broken");
    }
}

/// What was minted with a known key, and one bit of it flipped: the two agree
/// on whether the signature still holds, and it never does in what is signed.
#[test]
fn both_refuse_the_signature_of_what_was_altered() {
    let decoded = RefCell::new(0_u32);
    runner(20_000)
        .run(&(parts(), any::<Index>(), 0..8_u8), |(parts, at, bit)| {
            let mut bytes = binary(&parts.theirs(), Format::V2);
            // The location is a hint outside the signature.
            let signed = if let Some(location) = &parts.location {
                1 + 1 + if location.len() < 0x80 { 1 } else { 2 } + location.len()
            } else {
                1
            };
            let at = signed + at.index(bytes.len() - signed);
            bytes[at] ^= 1 << bit;
            if let Ok(ours) = Macaroon::decode(&bytes) {
                *decoded.borrow_mut() += 1;
                prop_assert!(!ours.verify(&parts.root_key), "byte {at}");
                let theirs = macaroon::Macaroon::deserialize_binary(&bytes).unwrap();
                prop_assert!(!theirs_verifies(&theirs, &parts.root_key), "byte {at}");
            }
            Ok(())
        })
        .unwrap();
    assert!(decoded.into_inner() > 1_000, "most altered macaroons have their form still");
}
