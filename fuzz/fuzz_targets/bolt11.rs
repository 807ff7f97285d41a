//! Any text as the invoice of a backend: the answer is 503, or a 402 that sells
//! exactly what was asked for.
//!
//! An input that begins with `=` is the text itself; any other is signed and
//! gets its checksum, so that the fields are reached.

#![no_main]

use http::StatusCode;
use http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use l402::{Challenge, Gate, Refusal};
use l402_fuzz::{NOW, Says, admit, bolt11, head, issuer, pass};
use libfuzzer_sys::fuzz_target;

fuzz_target!(
    init: {
        let sold = include_bytes!("../corpus/bolt11/as_asked");
        assert!(sell(sold), "the corpus no longer has the invoice that is asked for");
    },
    |input: &[u8]| {
        sell(input);
    }
);

/// Whether the invoice was sold.
fn sell(input: &[u8]) -> bool {
    let text = match input {
        [b'=', text @ ..] => std::str::from_utf8(text).ok().map(str::to_owned),
        unsigned => bolt11::assemble(unsigned),
    };
    let Some(text) = text else { return false };

    // An issuer of its own for each input: one remembers the hashes it sold.
    let gate = Gate::new(&issuer(0x11, 0x22, Says(Some(text.clone()))), "forecast", pass()).expect("a gate");
    let response = admit(&gate, &mut head()).expect_err("nothing was presented");
    let refusal = response.extensions().get::<Refusal>().expect("a refusal");

    if response.status() == StatusCode::SERVICE_UNAVAILABLE {
        assert!(matches!(refusal, Refusal::BackendUnavailable { .. }));
        assert!(response.headers().contains_key(RETRY_AFTER));
        assert!(!response.headers().contains_key(WWW_AUTHENTICATE));
        return false;
    }
    assert_eq!(response.status(), StatusCode::PAYMENT_REQUIRED);
    assert_eq!(*refusal, Refusal::MissingCredential);
    let header = response.headers()[WWW_AUTHENTICATE].to_str().expect("ASCII");
    let challenge: Challenge = header.parse().expect("a challenge");
    assert_eq!(challenge.invoice(), text.trim().to_ascii_lowercase(), "not what the node signed");

    let said = bolt11::read(challenge.invoice()).expect("an invoice");
    assert_eq!(said.amount_msat, 21_000);
    assert_eq!(said.expiry, 300);
    assert!(said.timestamp + said.expiry > NOW, "expired");
    assert_eq!(said.payment_hash, *challenge.token().identifier().payment_hash.as_bytes());
    true
}
