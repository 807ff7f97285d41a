//! Any header lines before a gate: nothing panics, and nothing is admitted but
//! the known credentials.

#![no_main]

use std::sync::LazyLock;

use bytes::Bytes;
use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::{Response, StatusCode};
use l402::{Basis, Gate, Refusal};
use l402_fuzz::{Credential, admit, pass_gate, read_lines};
use libfuzzer_sys::fuzz_target;

static GATE: LazyLock<Gate> = LazyLock::new(pass_gate);

/// The credentials that open the gate, in the two forms of the wire: token in
/// base64 and preimage, and hex of the token with its preimage.
static KNOWN: LazyLock<Vec<Credential>> = LazyLock::new(|| {
    let whole = Credential::of(&GATE);
    let weaker = whole.attenuate("forecast_valid_until=1900000100");
    vec![whole.with_preimage_caveat(), weaker.with_preimage_caveat(), whole, weaker]
});

fuzz_target!(
    init: {
        for known in [
            &include_bytes!("../corpus/credential/l402")[..],
            include_bytes!("../corpus/credential/weaker"),
            include_bytes!("../corpus/credential/hex"),
        ] {
            assert!(present(known), "the corpus no longer has the known credentials");
        }
    },
    |input: &[u8]| {
        present(input);
    }
);

/// Whether the header lines were admitted.
fn present(input: &[u8]) -> bool {
    let mut head = read_lines(input);
    let given = head.headers.clone();
    let admission = match admit(&GATE, &mut head) {
        Ok(admission) => admission,
        Err(response) => {
            check_refusal(&response);
            return false;
        }
    };

    let pairs = given.get_all(AUTHORIZATION).iter().any(|line| has_known_pair(line.as_bytes()));
    let hex = ["macaroon", "grpc-metadata-macaroon", "token"]
        .iter()
        .flat_map(|name| given.get_all(*name))
        .any(|line| is_known_hex(line.as_bytes()));
    assert!(pairs || hex, "admitted: {given:?}");

    let grant = admission.grant();
    assert_eq!(grant.basis(), Basis::Preimage);
    assert_eq!(grant.service(), "forecast");
    assert_eq!(grant.payment_hash(), Some(KNOWN[0].preimage.payment_hash()));
    assert!(admit(&GATE, &mut head).is_err(), "the credential was left in the headers");
    true
}

fn check_refusal(response: &Response<Bytes>) {
    let refusal = response.extensions().get::<Refusal>().expect("a refusal");
    let grpc = response.headers().get("grpc-status").is_some();
    assert!(grpc || response.status() == refusal.status());
    assert!(!grpc || response.status() == StatusCode::OK);
    // The backend is closed, so nothing is ever sold.
    assert!(!refusal.is_payable(), "{refusal:?}");
    let challenge = response.headers().get(WWW_AUTHENTICATE);
    assert!(challenge.is_none_or(|line| line == "L402"));
}

/// Whether a known pair stands in an Authorization line, behind one of our
/// schemes. Simpler than the crate's reading, and at most more generous.
fn has_known_pair(line: &[u8]) -> bool {
    let line = String::from_utf8_lossy(line);
    line.split(',').any(|part| {
        let Some((scheme, pair)) = part.trim_matches([' ', '\t']).split_once(' ') else { return false };
        let Some((token, preimage)) = pair.trim_start_matches(' ').split_once(':') else { return false };
        let token = token.trim_end_matches('=').replace('-', "+").replace('_', "/");
        ["l402", "lsat"].contains(&scheme.to_ascii_lowercase().as_str())
            && KNOWN.iter().any(|known| {
                token == known.base64().trim_end_matches('=')
                    && preimage.to_ascii_lowercase() == known.preimage.to_hex()
            })
    })
}

fn is_known_hex(line: &[u8]) -> bool {
    KNOWN[..2].iter().any(|known| line.to_ascii_lowercase() == known.hex().as_bytes())
}
