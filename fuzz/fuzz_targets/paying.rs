//! What a server asks a paying client for: any lines of `WWW-Authenticate`. It
//! is paid within the budget or not at all, and what is sent then is a token of
//! these lines and the preimage of its invoice, in one header that nothing splits.

#![no_main]

use std::convert::Infallible;
use std::sync::{Arc, LazyLock, Mutex};

use async_trait::async_trait;
use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::{HeaderValue, Request, Response};
use l402::client::{
    Body, ErrorKind, L402ClientLayer, PayError, Payer, Payment, PaymentRequest, PaymentStatus, Wallet,
};
use l402::{BackendError, FixedClock, Network, PaymentHash, Preimage};
use l402_fuzz::NOW;
use libfuzzer_sys::fuzz_target;
use tokio::runtime::{Builder, Runtime};
use tower::{Layer as _, ServiceExt as _, service_fn};

fuzz_target!(
    init: {
        let good = include_bytes!("../corpus/paying/ours");
        assert!(pays(good), "the corpus no longer has a challenge that is paid");
    },
    |input: &[u8]| {
        pays(input);
    }
);

/// Pays anything, with one preimage.
#[derive(Debug)]
struct Pays;

#[async_trait]
impl Wallet for Pays {
    fn network(&self) -> Network {
        Network::Regtest
    }

    fn limits_fees(&self) -> bool {
        true
    }

    async fn pay(&self, payment: &PaymentRequest) -> Result<Payment, PayError> {
        assert!(payment.amount_msat + payment.max_fee_msat <= 100_000, "beyond the budget: {payment:?}");
        Ok(Payment::new(Preimage::from_bytes([1; 32]), 0))
    }

    async fn status(&self, _: PaymentHash) -> Result<PaymentStatus, BackendError> {
        Ok(PaymentStatus::Unknown)
    }
}

/// Whether a token was bought.
fn pays(input: &[u8]) -> bool {
    static RUNTIME: LazyLock<Runtime> =
        LazyLock::new(|| Builder::new_current_thread().enable_time().build().expect("a runtime"));
    let lines = input.split(|byte| *byte == b'\n').take(64);
    let lines: Vec<_> = lines.filter_map(|line| HeaderValue::from_bytes(line).ok()).collect();
    let sent = Arc::<Mutex<Vec<HeaderValue>>>::default();
    let seen = sent.clone();
    let server = service_fn(move |request: Request<Body>| {
        seen.lock().expect("nobody panics").extend(request.headers().get_all(AUTHORIZATION).iter().cloned());
        let mut response = Response::new(());
        if !request.headers().contains_key(AUTHORIZATION) {
            *response.status_mut() = http::StatusCode::PAYMENT_REQUIRED;
            for line in &lines {
                response.headers_mut().append(WWW_AUTHENTICATE, line.clone());
            }
        }
        async { Ok::<_, Infallible>(response) }
    });
    let payer = Payer::new(Pays).with_clock(FixedClock::at(NOW));
    let client = L402ClientLayer::new(payer.clone()).layer(server);
    let request = Request::get("https://api.example/a").body(Body::default()).expect("a request");
    let answer = RUNTIME.block_on(client.oneshot(request));
    let spent = RUNTIME.block_on(payer.spent()).expect("memory").total_msat;
    let sent = sent.lock().expect("nobody panics");
    match answer {
        Ok(answer) => assert!(answer.status().is_success() && sent.len() == 1 && spent > 0),
        Err(error) => {
            assert!(sent.is_empty(), "{error:?}");
            let is_paid = error.kind() == ErrorKind::Preimage;
            assert_eq!(spent > 0, is_paid, "{error:?}");
            assert_eq!(error.receipt().is_some(), is_paid, "{error:?}");
            return false;
        }
    }
    assert!(spent <= 100_000 && sent[0].is_sensitive());
    let text = sent[0].to_str().expect("ASCII");
    let (token, preimage) = text.strip_prefix("L402 ").and_then(|pair| pair.split_once(':')).expect("a pair");
    assert_eq!(preimage, Preimage::from_bytes([1; 32]).to_hex());
    assert!(token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/=-_.~".contains(&byte)), "{token}");
    assert!(input.windows(token.len()).any(|window| window == token.as_bytes()), "{token}");
    true
}
