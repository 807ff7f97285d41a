//! Any text as a challenge: what is read is read the same again, from each of
//! the forms that servers write.

#![no_main]

use l402::{Challenge, Preimage};
use libfuzzer_sys::fuzz_target;

/// Longest challenge that is read, in bytes.
const MAX: usize = 16 * 1024;

fuzz_target!(
    init: {
        let ours = include_bytes!("../corpus/challenge/ours");
        assert!(read(ours), "the corpus no longer has a challenge of ours");
    },
    |input: &[u8]| {
        read(input);
    }
);

fn read(input: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(input) else { return false };
    let Ok(challenge) = text.parse::<Challenge>() else { return false };
    assert!(text.len() <= MAX);
    let (token, invoice) = (challenge.token().to_base64(), challenge.invoice());
    assert!(!invoice.is_empty() && invoice.bytes().all(|byte| byte.is_ascii_alphanumeric()));
    for form in [
        format!(r#"L402 macaroon="{token}", invoice="{invoice}", version="0", token="{token}""#),
        format!(r#"L402 version="0", token="{token}", invoice="{invoice}""#),
        format!(r#"LSAT macaroon="{token}", invoice="{invoice}""#),
    ] {
        if form.len() <= MAX {
            assert!(form.parse() == Ok(challenge.clone()), "{form}");
        }
    }
    let credential = challenge.token().credential(&Preimage::from_bytes([7; 32]));
    assert!(credential.is_sensitive());
    assert!(!format!("{challenge:?}").contains(&token), "a token in Debug");
    true
}
