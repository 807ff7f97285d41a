//! `LndBackend` against a fake of LND's REST API.
#![cfg(feature = "lnd")]

mod support {
    pub mod bent;
    pub mod books;
    pub mod fake_lnd;
    pub mod seller;
    pub mod wire;
}

use std::error::Error as _;
use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use l402::{
    BackendErrorKind, InvoiceRequest, InvoiceState, LndBackend, LndConfig, Network, PaymentBackend,
    PaymentHash, Price, conformance,
};
use support::bent;
use support::books::{Next, State};
use support::fake_lnd::{FakeLnd, MACAROON, READ_ONLY};
use support::seller::{ask, cause, is_sold, sell};
use support::wire::serve;

#[tokio::test]
async fn lnd_keeps_the_contract() {
    let node = FakeLnd::start().await;
    conformance::backend::check(Arc::new(node.backend())).await;
    conformance::backend::check_settlement(Arc::new(node.backend()), async |bolt11: String| {
        node.books.pay(&bolt11);
    })
    .await;
}

#[tokio::test]
async fn an_invoice_that_is_not_as_asked_is_not_sold() {
    let node = FakeLnd::start().await;
    bent::are_not_sold(&node.books, node.backend()).await;
}

#[tokio::test]
async fn lnd_withstands_every_fault() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("invoice.macaroon");
    std::fs::write(&file, MACAROON).unwrap();
    let build = |url: &str| -> Arc<dyn PaymentBackend> {
        Arc::new(LndBackend::new(LndConfig::new(url, Network::Regtest, &file)).unwrap())
    };
    conformance::backend::check_faults(build, &[&hex::encode(MACAROON)]).await;
}

#[tokio::test]
async fn a_sale_is_exact_to_the_msat() {
    for msat in [1, 999, 21_001] {
        let node = FakeLnd::start().await;
        is_sold(node.backend(), Price::msat(msat), msat, |bolt11| node.books.pay(bolt11)).await;
    }
}

#[tokio::test]
async fn invoices_tell_the_way_through_private_channels_where_asked_to() {
    let node = FakeLnd::start().await;
    node.backend().create_invoice(&InvoiceRequest::test(1_000)).await.unwrap();
    assert_eq!(node.books.asked(), [""; 0]);
    node.backend_of(LndConfig::with_private_channels)
        .create_invoice(&InvoiceRequest::test(1_000))
        .await
        .unwrap();
    assert_eq!(node.books.asked(), ["private"]);
}

#[tokio::test]
async fn look_up_tells_every_state() {
    let node = FakeLnd::start().await;
    let backend = node.backend();
    let hash = PaymentHash::from_bytes([0xff; 32]);
    assert_eq!(backend.look_up(hash, None).await.unwrap(), InvoiceState::Unknown);
    let entry = node.books.make(1_000, "", 600, None);
    for (state, told) in [
        (State::Open, InvoiceState::Open),
        (State::Held, InvoiceState::Open),
        (State::Paid, InvoiceState::Settled),
        (State::Expired, InvoiceState::Closed),
    ] {
        node.books.set(&entry.bolt11, state);
        assert_eq!(backend.look_up(entry.preimage.payment_hash(), None).await.unwrap(), told, "{state:?}");
    }
}

#[tokio::test]
async fn an_answer_about_another_invoice_tells_nothing() {
    let node = FakeLnd::start().await;
    for r_hash in ["BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=", "BwcH", "#"] {
        let body = serde_json::json!({ "state": "SETTLED", "r_hash": r_hash }).to_string();
        let server = serve(Router::new().fallback(async move || body)).await;
        let backend = node.backend_with(&format!("http://{}", server.address), &MACAROON);
        let state = async |hash: [u8; 32]| backend.look_up(hash.into(), None).await.map_err(|e| e.kind());
        assert_eq!(state([8; 32]).await, Err(BackendErrorKind::InvalidResponse), "{r_hash}");
        if r_hash.len() == 44 {
            assert_eq!(state([7; 32]).await, Ok(InvoiceState::Settled));
        }
    }
}

/// LND answers a path that it does not know with the code of an invoice that
/// it does not know.
#[tokio::test]
async fn a_wrong_path_is_no_unknown_invoice() {
    let node = FakeLnd::start().await;
    let backend = node.backend_with(&format!("{}/lnd", node.url()), &MACAROON);
    let hash = PaymentHash::from_bytes([0xff; 32]);
    for error in [backend.look_up(hash, None).await.unwrap_err(), backend.check_health().await.unwrap_err()] {
        assert_eq!(error.kind(), BackendErrorKind::InvalidResponse);
    }
    assert!(cause(backend).await.ends_with("status 404: is the backend's address right?"));
}

#[tokio::test]
async fn a_macaroon_that_is_not_taken_is_an_error_of_auth() {
    let node = FakeLnd::start().await;
    let hash = PaymentHash::from_bytes([0xff; 32]);
    let wrong = node.backend_with(&node.url(), &[2; 46]);
    assert_eq!(wrong.check_health().await.unwrap_err().kind(), BackendErrorKind::Auth);
    assert_eq!(wrong.look_up(hash, None).await.unwrap_err().kind(), BackendErrorKind::Auth);
    let refused = "backend refused our credentials: LND does not take the macaroon";
    assert_eq!(cause(wrong).await, refused);

    let read_only = node.backend_with(&node.url(), &READ_ONLY);
    read_only.check_health().await.unwrap();
    assert_eq!(cause(read_only).await, refused);
    assert!(node.books.entries().is_empty());
    node.backend().check_health().await.unwrap();
}

/// Versions differ in status and code, and agree in the text.
#[tokio::test]
async fn what_lnd_says_is_understood_in_every_version() {
    use BackendErrorKind::{Auth, Backend, InvalidResponse};
    for (status, code, message, told) in [
        (404, 5, "unable to locate invoice", Ok(InvoiceState::Unknown)),
        (500, 2, "unable to locate invoice", Ok(InvoiceState::Unknown)),
        (500, 2, "there are no existing invoices", Ok(InvoiceState::Unknown)),
        (404, 5, "Not Found", Err((InvalidResponse, "status 404"))),
        (500, 2, "cannot get macaroon: root key with id 0 doesn't exist", Err((Auth, "the macaroon"))),
        (401, 16, "verification failed: signature mismatch", Err((Auth, "the macaroon"))),
        (500, 2, "wallet locked, unlock it to enable full RPC access", Err((Backend, "unlock it"))),
        (503, 14, "the RPC server is in the process of starting up", Err((Backend, "status 503"))),
    ] {
        let body = serde_json::json!({ "code": code, "message": message, "details": [] }).to_string();
        let status_code = StatusCode::from_u16(status).unwrap();
        let server = serve(Router::new().fallback(async move || (status_code, body))).await;
        let node = FakeLnd::start().await;
        let backend = node.backend_with(&format!("http://{}", server.address), &MACAROON);
        match (backend.look_up(PaymentHash::from_bytes([7; 32]), None).await, told) {
            (Ok(state), Ok(told)) => assert_eq!(state, told, "{message}"),
            (Err(error), Err((kind, text))) => {
                assert_eq!(error.kind(), kind, "{message}");
                let cause = error.source().expect("a cause").to_string();
                assert!(cause.contains(text), "{message}: {cause}");
            }
            (answer, _) => panic!("{message}: {answer:?}"),
        }
    }
}

/// LND has no key by which to find an invoice again: another one is made.
#[tokio::test]
async fn after_half_an_answer_the_next_sale_is_made() {
    let node = FakeLnd::start().await;
    node.books.answer_next(Next::Half);
    assert_eq!(cause(node.backend()).await, "backend gave an invalid answer: answer is not JSON");
    is_sold(node.backend(), Price::sat(1), 1_000, |bolt11| node.books.pay(bolt11)).await;
    assert_eq!(node.books.entries().len(), 2);
}

#[tokio::test]
async fn a_title_is_the_memo_and_reaches_the_payer_whole() {
    let at_most = "é".repeat(319);
    for title in ["", "100 forecasts", "\"\\ ⚡ 天気予報\n<>&%", &*at_most] {
        let node = FakeLnd::start().await;
        let server = sell(node.backend(), Price::sat(1), Some(title)).await;
        ask(&server).await;
        let entry = node.books.only();
        assert_eq!((&*entry.description, entry.expiry), (title, 300));
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_macaroon_file_is_said_at_start() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    std::fs::write(path("hex"), hex::encode(MACAROON)).unwrap();
    std::fs::write(path("empty"), "").unwrap();
    std::fs::write(path("other"), "a secret of another kind").unwrap();
    for (name, said) in [
        ("missing", "the macaroon cannot be read from"),
        ("hex", "is no macaroon in the binary form that LND writes"),
        ("empty", "is no macaroon in the binary form that LND writes"),
        ("other", "is no macaroon in the binary form that LND writes"),
    ] {
        let config = LndConfig::new("http://127.0.0.1:1", Network::Regtest, path(name));
        let error = LndBackend::new(config).unwrap_err();
        let text = format!("{error} {error:?}");
        assert!(error.to_string().contains(said), "{error}");
        assert!(error.to_string().contains(path(name).to_str().unwrap()), "{error}");
        assert!(!text.contains("0202") && !text.contains("secret"), "{text}");
    }
}
