//! `PhoenixdBackend` against a fake of phoenixd's API.
#![cfg(feature = "phoenixd")]

mod support {
    pub mod bent;
    pub mod books;
    pub mod fake_phoenixd;
    pub mod seller;
    pub mod wire;
}

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use l402::{
    BackendErrorKind, InvoiceState, Network, PaymentBackend, PaymentHash, PhoenixdBackend, PhoenixdConfig,
    Price, conformance,
};
use support::bent;
use support::books::{Next, State};
use support::fake_phoenixd::{FakePhoenixd, PASSWORD, backend_with};
use support::seller::{ask, cause, is_sold, sell};

#[tokio::test]
async fn phoenixd_keeps_the_contract() {
    let node = FakePhoenixd::start().await;
    conformance::backend::check(Arc::new(node.backend())).await;
    conformance::backend::check_settlement(Arc::new(node.backend()), async |bolt11: String| {
        node.books.pay(&bolt11);
    })
    .await;
}

#[tokio::test]
async fn an_invoice_that_is_not_as_asked_is_not_sold() {
    let node = FakePhoenixd::start().await;
    bent::are_not_sold(&node.books, node.backend()).await;
}

#[tokio::test]
async fn phoenixd_withstands_every_fault() {
    let build = |url: &str| -> Arc<dyn PaymentBackend> {
        Arc::new(PhoenixdBackend::new(PhoenixdConfig::new(url, Network::Regtest, PASSWORD)).unwrap())
    };
    let encoded = STANDARD.encode(format!(":{PASSWORD}"));
    conformance::backend::check_faults(build, &[&encoded, PASSWORD]).await;
}

/// The challenge shows what is paid, and the offer what it costs.
#[tokio::test]
async fn a_price_is_rounded_up_to_whole_satoshis() {
    for (msat, paid) in [(1, 1_000), (999, 1_000), (1_000, 1_000), (1_001, 2_000), (21_000, 21_000)] {
        let node = FakePhoenixd::start().await;
        is_sold(node.backend(), Price::msat(msat), paid, |bolt11| node.books.pay(bolt11)).await;
        assert_eq!(node.books.only().amount_msat, paid);
        assert_eq!(node.books.asked(), ["createinvoice"], "nothing else is asked");
    }
}

#[tokio::test]
async fn look_up_tells_every_state() {
    let node = FakePhoenixd::start().await;
    let backend = node.backend();
    let hash = PaymentHash::from_bytes([0xff; 32]);
    assert_eq!(backend.look_up(hash, None).await.unwrap(), InvoiceState::Unknown);
    let entry = node.books.make(1_000, "", 600, None);
    for (state, told) in [
        (State::Open, InvoiceState::Open),
        (State::Paid, InvoiceState::Settled),
        (State::Expired, InvoiceState::Closed),
    ] {
        node.books.set(&entry.bolt11, state);
        assert_eq!(backend.look_up(entry.preimage.payment_hash(), None).await.unwrap(), told, "{state:?}");
    }
}

#[tokio::test]
async fn a_wrong_path_is_no_unknown_invoice() {
    let node = FakePhoenixd::start().await;
    let backend = backend_with(&format!("{}/phoenixd", node.url()), PASSWORD);
    let hash = PaymentHash::from_bytes([0xff; 32]);
    for error in [backend.look_up(hash, None).await.unwrap_err(), backend.check_health().await.unwrap_err()] {
        assert_eq!(error.kind(), BackendErrorKind::InvalidResponse);
    }
    assert!(cause(backend).await.ends_with("status 404: is the backend's address right?"));
}

#[tokio::test]
async fn a_password_that_is_not_taken_is_an_error_of_auth() {
    let node = FakePhoenixd::start().await;
    let wrong = backend_with(&node.url(), "another");
    let hash = PaymentHash::from_bytes([0xff; 32]);
    assert_eq!(wrong.check_health().await.unwrap_err().kind(), BackendErrorKind::Auth);
    assert_eq!(wrong.look_up(hash, None).await.unwrap_err().kind(), BackendErrorKind::Auth);
    assert_eq!(cause(wrong).await, "backend refused our credentials: status 401");
    backend_with(&node.url(), &format!(" {PASSWORD}\n")).check_health().await.unwrap();
}

#[tokio::test]
async fn an_invoice_whose_answer_was_broken_is_found_by_its_external_id() {
    let node = FakePhoenixd::start().await;
    // Others' invoices are in the books, and newer ones than ours.
    node.books.make(21_000, "", 300, Some("l402-other".into()));
    node.books.answer_next(Next::Half);
    is_sold(node.backend(), Price::sat(21), 21_000, |bolt11| {
        assert_eq!(node.books.entries()[1].bolt11, bolt11);
        node.books.pay(bolt11)
    })
    .await;
    assert_eq!(node.books.asked(), ["createinvoice", "list"]);
}

#[tokio::test]
async fn an_invoice_whose_answer_never_came_is_found_by_its_external_id() {
    let node = FakePhoenixd::start().await;
    node.books.answer_next(Next::Silence);
    let server = sell(node.backend(), Price::sat(21), None).await;
    let (answer, ()) = tokio::join!(ask(&server), node.books.wait_out_the_silence(6));
    assert_eq!(answer.challenge().invoice(), node.books.only().bolt11);
    assert_eq!(node.books.asked(), ["createinvoice", "list"]);
}

#[tokio::test]
async fn an_invoice_that_was_never_made_is_a_timeout_and_asked_for_once() {
    let node = FakePhoenixd::start().await;
    node.books.answer_next(Next::Nothing);
    let (cause, ()) = tokio::join!(cause(node.backend()), node.books.wait_out_the_silence(6));
    assert_eq!(cause, "backend did not answer in time");
    assert_eq!(node.books.asked(), ["createinvoice", "list"]);
}

#[tokio::test]
async fn an_invoice_that_is_paid_already_is_not_sold_again() {
    let node = FakePhoenixd::start().await;
    node.books.answer_next(Next::PaidAndHalf);
    assert_eq!(cause(node.backend()).await, "backend gave an invalid answer: answer is not JSON");
}

#[tokio::test]
async fn a_title_is_the_description_cut_after_128_characters() {
    let (long, crabs) = ("é".repeat(319), "🦀".repeat(159));
    for (title, told) in [
        ("", String::new()),
        ("a&amountSat=1+1=2 %41\n⚡ 天気予報", "a&amountSat=1+1=2 %41\n⚡ 天気予報".to_owned()),
        (&long, "é".repeat(128)),
        (&crabs, "🦀".repeat(64)),
    ] {
        let node = FakePhoenixd::start().await;
        let server = sell(node.backend(), Price::sat(1), Some(title)).await;
        ask(&server).await;
        let entry = node.books.only();
        assert_eq!((entry.description, entry.expiry), (told, 300));
    }
}

#[tokio::test]
async fn a_password_is_checked_at_start_and_never_shown() {
    for empty in ["", " \n"] {
        let config = PhoenixdConfig::new("http://127.0.0.1:1", Network::Regtest, empty);
        let error = PhoenixdBackend::new(config).unwrap_err();
        assert_eq!(error.to_string(), "the password of phoenixd is empty");
    }
    let encoded = STANDARD.encode(format!(":{PASSWORD}"));
    let config = PhoenixdConfig::new("http://127.0.0.1:1", Network::Regtest, PASSWORD);
    let shown = format!("{config:?} {config:#?} {:?}", PhoenixdBackend::new(config.clone()).unwrap());
    assert!(!shown.contains(PASSWORD) && !shown.contains(&encoded), "{shown}");
}
