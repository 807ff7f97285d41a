//! Any bytes as a macaroon: what decodes keeps its bytes and its caps, can be
//! attenuated, and verifies only where the key really signed it.

#![no_main]

use l402::macaroon::{MAX_CAVEAT, MAX_CAVEATS, MAX_MACAROON, Macaroon, mint};
use l402_fuzz::ROOT;
use libfuzzer_sys::fuzz_target;

fuzz_target!(
    init: {
        let signed = include_bytes!("../corpus/macaroon/minted");
        assert!(check(signed), "the corpus no longer has a macaroon of the key");
    },
    |input: &[u8]| {
        check(input);
    }
);

/// Whether the input is a macaroon that the key signed.
fn check(input: &[u8]) -> bool {
    let Ok(macaroon) = Macaroon::decode(input) else { return false };
    assert!(macaroon.as_bytes() == input, "decode then encode is not the identity");
    assert!(input.len() <= MAX_MACAROON);
    let caveats: Vec<&[u8]> = macaroon.caveats().collect();
    assert!(caveats.len() <= MAX_CAVEATS);
    assert!(caveats.iter().all(|caveat| caveat.len() <= MAX_CAVEAT));
    assert!(macaroon.clone().into_owned() == macaroon);

    // The location is outside the signature, and `mint` writes none.
    let minted = mint(ROOT, &macaroon.identifier(), &caveats).expect("its caveats are within the caps");
    assert!(minted.verify(ROOT) && !minted.verify(b"another root key"));
    assert!(minted.caveats().eq(macaroon.caveats()));
    // There is one encoding: what `mint` writes, with the location before it.
    let (unsigned, body) = (&input[..input.len() - 32], &minted.as_bytes()[1..minted.as_bytes().len() - 32]);
    assert_eq!(unsigned, [&[2], &*location_field(macaroon.location()), body].concat(), "not canonical");
    let signature = |bytes: &[u8]| bytes[bytes.len() - 32..].to_vec();
    let signed = signature(minted.as_bytes()) == signature(input);
    assert_eq!(macaroon.verify(ROOT), signed);

    // Only the caps stand in the way of one more caveat.
    match macaroon.attenuate("fuzz=1") {
        Ok(weaker) => {
            let read = Macaroon::decode(weaker.as_bytes()).expect("what was attenuated decodes");
            assert!(read == weaker);
            assert!(read.identifier() == macaroon.identifier());
            assert_eq!(read.location(), macaroon.location());
            assert!(read.caveats().eq(caveats.iter().copied().chain([&b"fuzz=1"[..]])));
            assert_eq!(read.verify(ROOT), signed, "one more caveat changed who signed");
        }
        Err(_) => assert!(caveats.len() == MAX_CAVEATS || input.len() + b"..fuzz=1.".len() > MAX_MACAROON),
    }
    signed
}

fn location_field(location: Option<&[u8]>) -> Vec<u8> {
    let Some(location) = location else { return Vec::new() };
    let mut field = vec![1];
    let mut len = location.len();
    while len >= 0x80 {
        field.push(u8::try_from(len & 0x7f).expect("7 bits") | 0x80);
        len >>= 7;
    }
    field.push(u8::try_from(len).expect("7 bits"));
    field.extend(location);
    field
}
