//! `ClnBackend` against a fake of Core Lightning's CLNRest.
#![cfg(feature = "cln")]

mod support {
    pub mod bent;
    pub mod books;
    pub mod fake_cln;
    pub mod seller;
    pub mod wire;
}

use std::sync::Arc;

use l402::{
    BackendErrorKind, ClnBackend, ClnConfig, InvoiceState, Network, PaymentBackend, PaymentHash, Price,
    conformance,
};
use support::bent;
use support::books::{Next, State};
use support::fake_cln::{FOR_INVOICES, FakeCln, Settings, backend_with, rune};
use support::seller::{ask, cause, is_sold, sell};

#[tokio::test]
async fn cln_keeps_the_contract() {
    let node = FakeCln::start().await;
    conformance::backend::check(Arc::new(node.backend())).await;
    conformance::backend::check_settlement(Arc::new(node.backend()), async |bolt11: String| {
        node.books.pay(&bolt11);
    })
    .await;
}

#[tokio::test]
async fn an_invoice_that_is_not_as_asked_is_not_sold() {
    let node = FakeCln::start().await;
    bent::are_not_sold(&node.books, node.backend()).await;
}

#[tokio::test]
async fn cln_withstands_every_fault() {
    let rune = rune(FOR_INVOICES);
    let build = |url: &str| -> Arc<dyn PaymentBackend> {
        Arc::new(ClnBackend::new(ClnConfig::new(url, Network::Regtest, &*rune)).unwrap())
    };
    conformance::backend::check_faults(build, &[&rune]).await;
}

#[tokio::test]
async fn a_sale_is_exact_to_the_msat() {
    for msat in [1, 999, 21_001] {
        let node = FakeCln::start().await;
        is_sold(node.backend(), Price::msat(msat), msat, |bolt11| node.books.pay(bolt11)).await;
        assert_eq!(node.books.asked(), ["invoice"], "nothing else is asked");
    }
}

#[tokio::test]
async fn look_up_tells_every_state() {
    let node = FakeCln::start().await;
    let backend = node.backend();
    let hash = PaymentHash::from_bytes([0xff; 32]);
    assert_eq!(backend.look_up(hash, None).await.unwrap(), InvoiceState::Unknown);
    let entry = node.books.make(1_000, "", 600, Some("a".into()));
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
async fn a_rune_that_is_not_taken_is_an_error_of_auth() {
    for nested in [false, true] {
        let node = FakeCln::start().await;
        node.set(Settings { nested, ..Settings::default() });
        let mut of_another = vec![b'A'; 48];
        of_another.extend(b"PT09");
        let wrong = backend_with(&node.url(), std::str::from_utf8(&of_another).unwrap());
        assert_eq!(wrong.check_health().await.unwrap_err().kind(), BackendErrorKind::Auth);
        assert!(cause(wrong).await.starts_with("backend refused our credentials: "));

        let reads = backend_with(&node.url(), &rune("=0&method=listinvoices"));
        reads.check_health().await.unwrap();
        assert!(cause(reads).await.starts_with("backend refused our credentials: "));
        let makes = backend_with(&node.url(), &rune("=0&method=invoice"));
        assert_eq!(makes.check_health().await.unwrap_err().kind(), BackendErrorKind::Auth);
        assert!(node.books.entries().is_empty());
        node.backend().check_health().await.unwrap();
    }
}

#[tokio::test]
async fn a_wrong_path_is_no_unknown_invoice() {
    let node = FakeCln::start().await;
    let backend = backend_with(&format!("{}/cln", node.url()), &rune(FOR_INVOICES));
    assert_eq!(backend.check_health().await.unwrap_err().kind(), BackendErrorKind::InvalidResponse);
    assert!(cause(backend).await.ends_with("status 404: is the backend's address right?"));
}

#[tokio::test]
async fn an_invoice_whose_answer_was_broken_is_found_by_its_label() {
    let node = FakeCln::start().await;
    node.books.answer_next(Next::Half);
    is_sold(node.backend(), Price::sat(21), 21_000, |bolt11| node.books.pay(bolt11)).await;
    assert!(node.books.only().label.unwrap().starts_with("l402-"));
    assert_eq!(node.books.asked(), ["invoice", "listinvoices"]);
}

#[tokio::test]
async fn an_invoice_whose_answer_never_came_is_found_by_its_label() {
    let node = FakeCln::start().await;
    node.books.answer_next(Next::Silence);
    let server = sell(node.backend(), Price::sat(21), None).await;
    let (answer, ()) = tokio::join!(ask(&server), node.books.wait_out_the_silence(6));
    assert_eq!(answer.challenge().invoice(), node.books.only().bolt11);
    assert_eq!(node.books.asked(), ["invoice", "listinvoices"]);
}

#[tokio::test]
async fn an_invoice_that_was_never_made_is_a_timeout_and_asked_for_once() {
    let node = FakeCln::start().await;
    node.books.answer_next(Next::Nothing);
    let (cause, ()) = tokio::join!(cause(node.backend()), node.books.wait_out_the_silence(6));
    assert_eq!(cause, "backend did not answer in time");
    assert_eq!(node.books.asked(), ["invoice", "listinvoices"]);
    assert!(node.books.entries().is_empty());
}

/// A label is taken where a proxy sent our request twice, and the first answer
/// was lost on the way.
#[tokio::test]
async fn an_invoice_whose_label_is_taken_is_the_one_that_has_it() {
    for nested in [false, true] {
        let node = FakeCln::start().await;
        node.set(Settings { nested, repeats: true, ..Settings::default() });
        is_sold(node.backend(), Price::sat(21), 21_000, |bolt11| node.books.pay(bolt11)).await;
        node.books.only();
        assert_eq!(node.books.asked(), ["invoice", "invoice", "listinvoices"]);
    }
}

#[tokio::test]
async fn an_invoice_that_is_paid_already_is_not_sold_again() {
    let node = FakeCln::start().await;
    node.books.answer_next(Next::PaidAndHalf);
    assert_eq!(cause(node.backend()).await, "backend gave an invalid answer: answer is not JSON");
}

#[tokio::test]
async fn where_the_invoice_cannot_be_looked_for_the_first_error_stands() {
    let node = FakeCln::start().await;
    node.set(Settings { list_fails: true, ..Settings::default() });
    node.books.answer_next(Next::Half);
    assert_eq!(cause(node.backend()).await, "backend gave an invalid answer: answer is not JSON");
    assert_eq!(node.books.asked(), ["invoice", "listinvoices"]);
}

/// lightningd takes no `\u` in JSON, which control characters would become.
#[tokio::test]
async fn a_title_is_the_description_and_its_control_characters_are_spaces() {
    let at_most = "é".repeat(319);
    for (title, told) in [
        ("", ""),
        ("\"\\ ⚡ 天気予報 <>&%", "\"\\ ⚡ 天気予報 <>&%"),
        ("a\u{1}b\nc\u{7f}", "a b c "),
        (&at_most, &at_most),
    ] {
        let node = FakeCln::start().await;
        let server = sell(node.backend(), Price::sat(1), Some(title)).await;
        ask(&server).await;
        let entry = node.books.only();
        assert_eq!((&*entry.description, entry.expiry), (told, 300));
    }
}

#[tokio::test]
async fn what_the_node_warns_of_is_told_until_it_warns_no_more() {
    let node = FakeCln::start().await;
    let backend = node.backend();
    let server = sell(backend.clone(), Price::sat(1), None).await;
    assert!(backend.warnings().is_empty());
    for warnings in [vec!["warning_capacity"], vec!["warning_offline", "warning_mpp"], vec![]] {
        node.set(Settings { warnings: warnings.clone(), ..Settings::default() });
        ask(&server).await;
        assert_eq!(backend.warnings(), warnings);
    }
}

#[tokio::test]
async fn a_rune_is_checked_at_start_and_never_shown() {
    let whole = rune(FOR_INVOICES);
    for wrong in ["", "  ", "abc", &format!("{{\"rune\":\"{whole}\"}}"), &format!("{whole} 0"), "é"] {
        let error =
            ClnBackend::new(ClnConfig::new("http://127.0.0.1:1", Network::Regtest, wrong)).unwrap_err();
        let text = format!("{error} {error:?}");
        assert!(text.contains("the rune is not one"), "{text}");
        assert!(!text.contains(&whole), "{text}");
    }
    let config = ClnConfig::new("http://127.0.0.1:1", Network::Regtest, format!(" {whole}\n"));
    assert!(!format!("{config:?} {config:#?}").contains(&whole));
    let backend = ClnBackend::new(config).unwrap();
    assert!(!format!("{backend:?} {backend:#?}").contains(&whole));
}
