//! `LnbitsBackend` against answers that LNbits gives. `tests/real_lnbits.rs`
//! has the real one.
#![cfg(feature = "lnbits")]

use std::error::Error as _;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode};
use l402::{
    BackendError, BackendErrorKind, Capabilities, ErrorKind, InvoiceState, LnbitsBackend, LnbitsConfig,
    LookUpBy, Network, PaymentBackend, PaymentHash, conformance,
};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

const KEY: &str = "0123456789abcdef0123456789abcdef";

fn hash() -> PaymentHash {
    PaymentHash::from_bytes([0xab; 32])
}

fn backend(url: &str) -> LnbitsBackend {
    LnbitsBackend::new(LnbitsConfig::new(url, Network::Regtest, KEY)).unwrap()
}

/// Gives one answer, to whoever has the key. Runs until it is dropped.
struct Fake {
    url: String,
    answer: Arc<Mutex<(u16, Value)>>,
    task: JoinHandle<()>,
}

impl Fake {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let answer = Arc::new(Mutex::new((500, Value::Null)));
        let app = Router::new().fallback(give).with_state(answer.clone());
        let task = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { url, answer, task }
    }

    fn set(&self, status: u16, answer: Value) {
        *self.answer.lock().unwrap() = (status, answer);
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn give(State(answer): State<Arc<Mutex<(u16, Value)>>>, headers: HeaderMap) -> Response {
    assert_eq!(headers["x-api-key"], KEY);
    let (status, answer) = answer.lock().unwrap().clone();
    (StatusCode::from_u16(status).unwrap(), answer.to_string()).into_response()
}

fn shown(error: &BackendError) -> String {
    format!("{error}: {} {error:?}", error.source().map(ToString::to_string).unwrap_or_default())
}

/// What LNbits says of a payment of the wallet: the preimage is always there.
fn found(paid: bool, status: Option<&str>) -> Value {
    let details =
        json!({ "payment_hash": hash().to_string(), "preimage": "5e".repeat(32), "amount": 21_000 });
    json!({ "paid": paid, "status": status, "preimage": "5e".repeat(32), "details": details })
}

#[tokio::test]
async fn what_became_of_an_invoice_is_read() {
    use BackendErrorKind::{Auth, InvalidResponse, Rejected};
    let fake = Fake::start().await;
    let other = json!({ "paid": true, "details": { "payment_hash": "00".repeat(32) } });
    for (status, answer, expected) in [
        (200, found(true, None), Ok(InvoiceState::Settled)),
        (200, found(true, Some("success")), Ok(InvoiceState::Settled)),
        (200, found(false, Some("pending")), Ok(InvoiceState::Open)),
        (200, found(false, None), Ok(InvoiceState::Open)),
        (200, found(false, Some("failed")), Ok(InvoiceState::Closed)),
        (404, json!({ "detail": "Payment does not exist." }), Ok(InvoiceState::Unknown)),
        (404, json!({ "detail": "Wallet not found." }), Err(Auth)),
        // What LNbits tells anybody of any wallet's payment: the key is not known there.
        (200, json!({ "paid": true, "preimage": "5e".repeat(32) }), Err(Auth)),
        (200, json!({ "paid": false, "details": null }), Err(Auth)),
        (200, other, Err(InvalidResponse)),
        (200, json!({ "paid": "true", "details": {} }), Err(InvalidResponse)),
        (401, json!({ "detail": "No Api Key provided." }), Err(Auth)),
        (403, json!({ "detail": "Invalid adminkey." }), Err(Auth)),
        (400, json!({ "detail": "5e".repeat(32) }), Err(Rejected)),
        (520, json!({ "detail": "5e".repeat(32), "status": "failed" }), Err(BackendErrorKind::Backend)),
    ] {
        fake.set(status, answer.clone());
        let state = backend(&fake.url).look_up(hash(), None).await;
        if let Err(error) = &state {
            assert!(!shown(error).contains("5e5e"), "{error:?}");
        }
        assert_eq!(state.map_err(|error| error.kind()), expected, "{status} {answer}");
    }
    // The 404 of another server says nothing of an invoice.
    fake.set(404, json!({ "detail": "Not Found" }));
    assert!(backend(&fake.url).look_up(hash(), None).await.is_err());
}

#[tokio::test]
async fn health_is_that_of_the_wallet() {
    let fake = Fake::start().await;
    fake.set(200, json!({ "name": "shop", "balance": 100_000 }));
    backend(&fake.url).check_health().await.unwrap();
    fake.set(404, json!({ "detail": "Wallet not found." }));
    let error = backend(&fake.url).check_health().await.unwrap_err();
    assert_eq!(error.kind(), BackendErrorKind::Auth);
    assert!(shown(&error).contains("invoice key"), "{error:?}");
}

#[tokio::test]
async fn every_fault_is_withstood() {
    let build = |url: &str| -> Arc<dyn PaymentBackend> { Arc::new(backend(url)) };
    conformance::backend::check_faults(build, &[KEY]).await;
}

#[test]
fn a_preimage_proves_nothing_and_whole_satoshis_are_billed() {
    let custodian = Capabilities::custodian(Network::Regtest).with_look_up(LookUpBy::PaymentHash);
    assert_eq!(backend("https://lnbits.example").capabilities(), custodian.with_step_msat(1_000));
}

#[test]
fn what_cannot_be_used_does_not_build_and_no_key_is_printed() {
    for (url, key) in
        [("lnbits.example", KEY), ("https://lnbits.example", ""), ("https://lnbits.example", "a\nb")]
    {
        let config = LnbitsConfig::new(url, Network::Regtest, key);
        assert_eq!(LnbitsBackend::new(config).unwrap_err().kind(), ErrorKind::Backend, "{url} {key:?}");
    }
    let config = LnbitsConfig::new("https://lnbits.example", Network::Regtest, KEY);
    let shown = format!("{config:?} {:?}", LnbitsBackend::new(config.clone()));
    assert!(!shown.contains(KEY) && shown.contains("lnbits.example"), "{shown}");
    let missing = config.with_certificate("/nowhere/lnbits.pem");
    assert!(LnbitsBackend::new(missing).unwrap_err().to_string().contains("/nowhere/lnbits.pem"));
}
