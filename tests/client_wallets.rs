//! The wallets of the paying client keep their contract, against fakes that
//! answer by the documented APIs; and each in what is its own.
#![cfg(all(
    feature = "client",
    feature = "cln",
    feature = "lnbits",
    feature = "lnd",
    feature = "nwc",
    feature = "phoenixd"
))]

mod support {
    pub mod books;
    pub mod fake_lnbits;
    pub mod nwc;
    pub mod payer;
    pub mod paying_cln;
    pub mod paying_lnd;
    pub mod paying_phoenixd;
    pub mod wire;
}

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use futures_util::future::join_all;
use l402::client::{NwcWallet, PayError, PayErrorKind, PaymentRequest, PaymentStatus, Wallet};
use l402::{
    BackendErrorKind, DevBackend, InvoiceRequest, Network, NwcConfig, PaymentBackend as _, PaymentHash,
    conformance,
};
use serde_json::{Value, json};
use support::books::Books;
use support::fake_lnbits::{self, FakeLnbits};
use support::nwc::{Relay, Setup, Wallet as NwcService, failure, tag};
use support::payer::{NextPay, Payee, Payments, Reveals, payable};
use support::paying_cln::{self, PayingCln};
use support::paying_lnd::{PAYS, PayingLnd};
use support::paying_phoenixd::{self, PayingPhoenixd};
use support::wire::serve;

/// A wallet on a fake, which lives as long as this.
struct Subject {
    name: &'static str,
    wallet: Arc<dyn Wallet>,
    payments: Payments,
    _server: Box<dyn Any>,
}

/// Every wallet that speaks HTTP.
async fn subjects() -> Vec<Subject> {
    fn subject(
        name: &'static str,
        wallet: impl Wallet + 'static,
        payments: &Payments,
        server: impl Any,
    ) -> Subject {
        Subject { name, wallet: Arc::new(wallet), payments: payments.clone(), _server: Box::new(server) }
    }
    let (lnd, cln) = (PayingLnd::start().await, PayingCln::start().await);
    let (phoenixd, lnbits) = (PayingPhoenixd::start().await, FakeLnbits::start().await);
    vec![
        subject("LND", lnd.wallet(), &lnd.payments.clone(), lnd),
        subject("Core Lightning", cln.wallet(), &cln.payments.clone(), cln),
        subject("phoenixd", phoenixd.wallet(), &phoenixd.payments.clone(), phoenixd),
        subject("LNbits", lnbits.wallet(), &lnbits.payments.clone(), lnbits),
    ]
}

impl Subject {
    fn payable(&self) -> PaymentRequest {
        payable(self.payments.books())
    }

    async fn fails(&self, payment: &PaymentRequest) -> PayErrorKind {
        self.wallet.pay(payment).await.expect_err(self.name).kind()
    }

    async fn status(&self, payment: &PaymentRequest) -> PaymentStatus {
        self.wallet
            .status(payment.payment_hash)
            .await
            .unwrap_or_else(|error| panic!("{}: {error:?}", self.name))
    }
}

#[tokio::test]
async fn every_wallet_keeps_the_contract() {
    join_all(subjects().await.into_iter().map(async |subject| {
        let payee = Arc::new(Payee(subject.payments.books().clone()));
        let payments = subject.payments.clone();
        conformance::wallet::check(subject.wallet.clone(), payee, async || payments.spent_msat()).await;
    }))
    .await;
}

#[tokio::test]
async fn the_development_wallet_keeps_the_contract() {
    let node = DevBackend::new();
    conformance::wallet::check(Arc::new(node.clone()), Arc::new(node.clone()), async || {
        node.payments() * conformance::wallet::AMOUNT_MSAT
    })
    .await;
    let foreign = payable(&Books::new());
    conformance::wallet::check_unpayable(Arc::new(node.clone()), &foreign, async || node.payments()).await;
}

#[tokio::test]
async fn every_wallet_that_speaks_http_withstands_every_fault() {
    const RUNE: &str = "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2U9MA==";
    type Build = Box<dyn Fn(&str) -> Arc<dyn Wallet>>;
    let lnd = PayingLnd::start().await;
    let rows: [(Build, Vec<&str>); 4] = [
        (Box::new(move |url| Arc::new(lnd.wallet_at(url, b"\x02s3cret"))), vec!["s3cret", "733363726574"]),
        (Box::new(|url| Arc::new(paying_cln::wallet_at(url, RUNE))), vec![RUNE]),
        (Box::new(|url| Arc::new(paying_phoenixd::wallet_at(url, "s3cret"))), vec!["s3cret", "OnMzY3JldA"]),
        (
            Box::new(|url| {
                use l402::{LnbitsConfig, client::LnbitsWallet};
                Arc::new(LnbitsWallet::new(LnbitsConfig::new(url, Network::Regtest, "s3cret")).unwrap())
            }),
            vec!["s3cret"],
        ),
    ];
    let payment = payable(&Books::new());
    join_all(rows.iter().map(|(build, secrets)| conformance::wallet::check_faults(build, &payment, secrets)))
        .await;
}

#[tokio::test]
async fn a_payment_that_finds_no_way_fails_for_certain_and_can_be_made_later() {
    for subject in subjects().await {
        let nowhere = payable(&Books::new());
        let spent = async || subject.payments.spent_msat();
        conformance::wallet::check_unpayable(subject.wallet.clone(), &nowhere, spent).await;
        let status = subject.status(&nowhere).await;
        assert!(matches!(status, PaymentStatus::Failed), "{}: {status:?}", subject.name);
    }
}

#[tokio::test]
async fn a_fee_is_held_within_its_limit_and_the_payment_made_once_that_is_raised() {
    for subject in subjects().await {
        let payment = subject.payable();
        let low = payment.clone().with_max_fee_msat(Payments::FEE_MSAT - 1);
        if subject.wallet.limits_fees() {
            assert_eq!(subject.fails(&low).await, PayErrorKind::Failed, "{}", subject.name);
            assert_eq!(subject.payments.spent_msat(), 0, "{}", subject.name);
        }
        let paid = subject.wallet.pay(&payment.with_max_fee_msat(Payments::FEE_MSAT)).await.unwrap();
        // phoenixd tells whole satoshis, cut off: counted as the most that it can be.
        let fee_msat = if subject.name == "phoenixd" { 1_999 } else { Payments::FEE_MSAT };
        assert_eq!(paid.fee_msat, fee_msat, "{}", subject.name);
    }
    let limit: Vec<_> = subjects().await.iter().map(|it| (it.name, it.wallet.limits_fees())).collect();
    assert_eq!(limit, [("LND", true), ("Core Lightning", true), ("phoenixd", false), ("LNbits", false)]);
}

#[tokio::test]
async fn an_answer_that_is_lost_is_looked_up_and_not_asked_for_again() {
    for subject in subjects().await {
        let name = subject.name;
        let payment = subject.payable();
        subject.payments.answer_next(NextPay::PaidAndHalf);
        let paid = subject.wallet.pay(&payment).await.unwrap_or_else(|error| panic!("{name}: {error:?}"));
        assert_eq!(paid.preimage.payment_hash(), payment.payment_hash, "{name}");

        let payment = subject.payable().with_time_limit(Duration::from_secs(7));
        subject.payments.answer_next(NextPay::PaidAndSilence);
        let (paid, ()) =
            tokio::join!(subject.wallet.pay(&payment), subject.payments.wait_out_the_silence(11));
        let paid = paid.unwrap_or_else(|error| panic!("{name}: {error:?}"));
        assert_eq!(paid.preimage.payment_hash(), payment.payment_hash, "{name}");
        assert_eq!(subject.payments.asked().len(), 2, "{name}");
        assert_eq!(subject.payments.spent_msat(), 2 * (21_000 + Payments::FEE_MSAT), "{name}");
    }
}

#[tokio::test]
async fn an_answer_that_may_have_paid_stays_uncertain_though_the_wallet_knows_of_nothing() {
    for subject in subjects().await {
        for status in [409, 429, 500, 503] {
            let payment = subject.payable();
            subject.payments.answer_next(NextPay::Status(status));
            assert_eq!(subject.fails(&payment).await, PayErrorKind::Uncertain, "{} {status}", subject.name);
            let known = subject.status(&payment).await;
            assert!(matches!(known, PaymentStatus::Unknown), "{}: {known:?}", subject.name);
            // Who looks and then pays again, pays once.
            subject.wallet.pay(&payment).await.unwrap();
        }
        assert_eq!(subject.payments.spent_msat(), 4 * (21_000 + Payments::FEE_MSAT), "{}", subject.name);
    }
}

#[tokio::test]
async fn a_preimage_that_is_not_the_one_is_none() {
    for subject in subjects().await {
        for reveals in [Reveals::AnotherOne, Reveals::Nothing] {
            // phoenixd has the preimage of whatever it paid.
            if subject.name == "phoenixd" && reveals == Reveals::Nothing {
                continue;
            }
            subject.payments.reveal(reveals);
            let payment = subject.payable();
            for _ in 0..2 {
                let error = subject.wallet.pay(&payment).await.unwrap_err();
                assert_eq!(error.kind(), PayErrorKind::NoPreimage, "{} {reveals:?}: {error:?}", subject.name);
                assert!(!error.is_definite());
            }
            let status = subject.status(&payment).await;
            assert!(matches!(status, PaymentStatus::PaidNoPreimage), "{}: {status:?}", subject.name);
        }
    }
}

#[tokio::test]
async fn a_payment_on_its_way_is_told_and_waited_for() {
    for subject in subjects().await {
        let name = subject.name;
        let payment = subject.payable();
        subject.payments.hold(true);
        let (wallet, first) = (subject.wallet.clone(), payment.clone());
        let first = tokio::spawn(async move { wallet.pay(&first).await });
        while !matches!(subject.status(&payment).await, PaymentStatus::InFlight) {
            tokio::task::yield_now().await;
        }
        let impatient = payment.clone().with_time_limit(Duration::ZERO);
        let release = async {
            // The second attempt has been refused, and has looked.
            while subject.payments.asked().len() < 2 {
                tokio::task::yield_now().await;
            }
            subject.payments.hold(false);
        };
        let (second, ()) = tokio::join!(subject.wallet.pay(&impatient), release);
        let (first, second) =
            (first.await.unwrap().unwrap(), second.unwrap_or_else(|e| panic!("{name}: {e:?}")));
        assert_eq!(first.preimage.to_hex(), second.preimage.to_hex(), "{name}");
        assert_eq!(subject.payments.spent_msat(), 21_000 + Payments::FEE_MSAT, "{name}");
    }
}

#[tokio::test]
async fn an_invoice_that_is_not_the_one_named_is_not_sent() {
    for subject in subjects().await {
        let payment = subject.payable();
        let mut other_hash = payment.clone();
        other_hash.payment_hash = PaymentHash::from_bytes([7; 32]);
        let mut more = payment.clone();
        more.amount_msat += 1;
        // Of mainnet.
        let foreign = PaymentRequest::new(
            "lnbc210n1p4spy65dqz0qxqzfvsp592g3gcyf2umryt9tzcjkvdmdyt38apg6nf98t852at7dzlfnv5pqpp5dnzee8s4j9pqkwznjdmzg85yr6ax2tvzrsu7nn6gft07axwyh7xqkcrnqw9jhz5wjp9d8szdsrtf7uph06rc4ap2x3cjdrff3a343r3rxtxmvpq3zjatmg8ycw6whgfszglxpy325526s2puhk9t0h7s00gphz9kfy",
            "6cc59c9e1591420b38539376241e841eba652d821c39e9cf484adfee99c4bf8c".parse().unwrap(),
            21_000,
        );
        for payment in [other_hash, more, foreign] {
            assert_eq!(subject.fails(&payment).await, PayErrorKind::NotSent, "{}", subject.name);
        }
        assert_eq!(subject.payments.asked(), [""; 0], "{}", subject.name);
    }
}

#[tokio::test]
async fn a_credential_that_cannot_pay_sends_nothing() {
    let (lnd, cln) = (PayingLnd::start().await, PayingCln::start().await);
    let (phoenixd, lnbits) = (PayingPhoenixd::start().await, FakeLnbits::start().await);
    let rows: [(Arc<dyn Wallet>, &Payments); 5] = [
        (Arc::new(lnd.wallet_with(&[2; 48])), &lnd.payments),
        (Arc::new(cln.wallet_with("=0&method=invoice|method=listinvoices")), &cln.payments),
        (Arc::new(phoenixd.wallet_with(paying_phoenixd::LIMITED_PASSWORD)), &phoenixd.payments),
        (Arc::new(lnbits.wallet_with(fake_lnbits::INVOICE_KEY)), &lnbits.payments),
        (Arc::new(lnbits.wallet_with("unknown")), &lnbits.payments),
    ];
    for (wallet, payments) in rows {
        let payment = payable(payments.books());
        let error = wallet.pay(&payment).await.unwrap_err();
        assert_eq!(error.kind(), PayErrorKind::NotSent, "{wallet:?}: {error:?}");
        let status = wallet.status(payment.payment_hash).await.unwrap_err();
        assert_eq!(status.kind(), BackendErrorKind::Auth, "{wallet:?}: {status:?}");
        assert_eq!(payments.spent_msat(), 0);
    }
}

#[tokio::test]
async fn nodes_are_told_the_fee_and_the_time_that_a_payment_may_take() {
    for subject in subjects().await.into_iter().filter(|subject| subject.wallet.limits_fees()) {
        for (fee, seconds, told) in [
            (5_000, Duration::from_millis(45_900), "fee 5000, 45 s"),
            (2_000, Duration::ZERO, "fee 2000, 1 s"),
            (i64::MAX.unsigned_abs(), Duration::MAX, "fee 9223372036854775807, 86400 s"),
        ] {
            let payment = subject.payable().with_max_fee_msat(fee).with_time_limit(seconds);
            subject.wallet.pay(&payment).await.unwrap();
            assert_eq!(subject.payments.asked().pop().unwrap(), told, "{}", subject.name);
        }
    }
}

/// A stream carries its errors in a 200, and what comes of it may be any state.
#[tokio::test]
async fn lnd_is_read_in_every_form_that_it_answers() {
    let node = PayingLnd::start().await;
    let payment = payable(node.payments.books());
    let hash = payment.payment_hash.to_string();
    let result = |status: &str| json!({ "result": { "payment_hash": hash, "status": status } }).to_string();
    let error = |error: Value| json!({ "error": error }).to_string();
    let not_initiated = json!({ "code": 5, "message": "payment isn't initiated" });
    let older = json!({ "grpc_code": 5, "http_code": 404, "message": "payment isn't initiated" });
    for (body, told) in [
        (result("INITIATED"), Some("InFlight")),
        (result("IN_FLIGHT"), Some("InFlight")),
        (result("FAILED"), Some("Failed")),
        (result("SUCCEEDED"), Some("PaidNoPreimage")),
        (result("UNKNOWN"), None),
        (error(not_initiated), Some("Unknown")),
        (error(older), Some("Unknown")),
        (
            json!({ "code": 5, "message": "payment isn't initiated", "details": [] }).to_string(),
            Some("Unknown"),
        ),
        (json!({ "code": 5, "message": "Not Found", "details": [] }).to_string(), None),
        (error(json!({ "code": 13, "message": "router is shutting down" })), None),
        (error(json!({})), None),
        (result("FAILED").replace(&hash, &"00".repeat(32)), None),
        (format!("{}\n{}", result("IN_FLIGHT"), result("FAILED")), Some("InFlight")),
    ] {
        let said = body.clone();
        let server = serve(Router::new().fallback(async move || said)).await;
        let wallet = node.wallet_at(&format!("http://{}", server.address), &PAYS);
        let status = wallet.status(payment.payment_hash).await;
        match told {
            Some(told) => assert_eq!(format!("{:?}", status.unwrap()), told, "{body}"),
            None => assert_eq!(status.unwrap_err().kind(), BackendErrorKind::InvalidResponse, "{body}"),
        }
    }
}

#[tokio::test]
async fn an_invoice_that_ended_by_the_nodes_clock_fails_for_certain() {
    let node = PayingLnd::start().await;
    let app = Router::new()
        .route(
            "/v2/router/send",
            axum::routing::post(async || {
                let body = json!({ "error": { "code": 2, "message": "invoice expired. Valid until 2026" } });
                (axum::http::StatusCode::INTERNAL_SERVER_ERROR, axum::Json(body))
            }),
        )
        .fallback(async || {
            let body = json!({ "error": { "code": 5, "message": "payment isn't initiated" } });
            (axum::http::StatusCode::NOT_FOUND, axum::Json(body))
        });
    let server = serve(app).await;
    let wallet = node.wallet_at(&format!("http://{}", server.address), &PAYS);
    let error = wallet.pay(&payable(node.payments.books())).await.unwrap_err();
    assert_eq!(error.kind(), PayErrorKind::Failed);
}

fn nwc(service: &NwcService) -> NwcWallet {
    NwcWallet::new(NwcConfig::new(service.uri(), Network::Regtest)).unwrap()
}

/// An invoice of 21 sat that a service can pay.
async fn nwc_payable(node: &DevBackend) -> PaymentRequest {
    let invoice = node.create_invoice(&InvoiceRequest::test(21_000)).await.unwrap();
    PaymentRequest::new(invoice.bolt11(), invoice.payment_hash().unwrap(), 21_000).with_max_fee_msat(10_000)
}

#[tokio::test]
async fn a_wallet_over_a_relay_keeps_the_contract() {
    let relay = Relay::start().await;
    let service = NwcService::start(&relay).await;
    let node = service.payee.clone();
    let spent = async || node.payments() * (conformance::wallet::AMOUNT_MSAT + support::nwc::FEE_MSAT);
    let wallet = Arc::new(nwc(&service));
    conformance::wallet::check(wallet.clone(), Arc::new(node.clone()), spent).await;
    conformance::wallet::check_unpayable(wallet.clone(), &payable(&Books::new()), spent).await;
    assert!(!wallet.limits_fees());
    assert!(!format!("{wallet:?} {wallet:#?}").contains(&service.secret()));
}

#[tokio::test]
async fn a_request_to_pay_expires_when_it_may_no_longer_be_tried() {
    let relay = Relay::start().await;
    let service = NwcService::start(&relay).await;
    let payment = nwc_payable(&service.payee).await.with_time_limit(Duration::from_secs(17));
    nwc(&service).pay(&payment).await.unwrap();
    let (event, call) = service.calls().remove(0);
    assert_eq!(call["method"], "pay_invoice");
    assert_eq!(call["params"], json!({ "invoice": payment.bolt11 }));
    assert_eq!(tag(&event, "expiration").parse::<u64>().unwrap(), event.created_at.as_secs() + 17);
}

#[tokio::test]
async fn a_code_of_nip_47_says_whether_something_may_have_been_sent() {
    use PayErrorKind::{Failed, NotSent, Uncertain};
    for (code, kind) in [
        ("INSUFFICIENT_BALANCE", Failed),
        ("QUOTA_EXCEEDED", Failed),
        ("PAYMENT_FAILED", Failed),
        ("RESTRICTED", NotSent),
        ("UNAUTHORIZED", NotSent),
        ("NOT_IMPLEMENTED", NotSent),
        ("RATE_LIMITED", Uncertain),
        ("INTERNAL", Uncertain),
        ("OTHER", Uncertain),
        ("OF_ITS_OWN", Uncertain),
    ] {
        let relay = Relay::start().await;
        let service = NwcService::bending(&relay, move |method, _| {
            let answer =
                if method == "pay_invoice" { failure(method, code) } else { failure(method, "NOT_FOUND") };
            Some(answer.to_string())
        })
        .await;
        let error = nwc(&service).pay(&nwc_payable(&service.payee).await).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{code}: {error:?}");
        assert!(!format!("{error:?}").contains("own words"), "{error:?}");
    }
}

/// Without `lookup_invoice`, or where it shows another attempt on its way, a
/// failure may be that of the second of two.
#[tokio::test]
async fn a_failure_that_the_wallet_does_not_confirm_is_none() {
    for found in ["NOT_IMPLEMENTED", "RESTRICTED", "INTERNAL"] {
        let relay = Relay::start().await;
        let service = NwcService::bending(&relay, move |method, _| {
            let code = if method == "pay_invoice" { "PAYMENT_FAILED" } else { found };
            Some(failure(method, code).to_string())
        })
        .await;
        let payment = nwc_payable(&service.payee).await;
        let error = nwc(&service).pay(&payment).await.unwrap_err();
        assert_eq!(error.kind(), PayErrorKind::Uncertain, "{found}");
        // What the connection lacks is named.
        let error = format!("{:?}", nwc(&service).status(payment.payment_hash).await.unwrap_err());
        assert_eq!(error.contains("does not offer lookup_invoice"), found != "INTERNAL", "{error}");
    }
}

#[tokio::test]
async fn a_payment_whose_answer_says_too_little_is_looked_up() {
    use PayErrorKind::{NoPreimage, Uncertain};
    let wrong = json!({ "preimage": "00".repeat(32) });
    for (paid, looked_up, kind) in [
        // What the wallet answers to pay_invoice, and what it changes in its look-up.
        (json!({}), None, None),
        (json!({ "preimage": null }), None, None),
        (wrong.clone(), None, None),
        (json!([]), None, None),
        (json!({}), Some(json!({ "preimage": null })), Some(NoPreimage)),
        (wrong, Some(json!({ "preimage": "00".repeat(32) })), Some(NoPreimage)),
        (json!([]), Some(json!({ "type": "incoming" })), Some(Uncertain)),
        (json!([]), Some(json!({ "payment_hash": "00".repeat(32) })), Some(Uncertain)),
        (json!([]), Some(json!({ "state": "odd" })), Some(Uncertain)),
        (json!([]), Some(json!({ "state": "failed" })), Some(Uncertain)),
        (json!([]), Some(json!({ "state": null })), None),
    ] {
        let (said, changed) = (paid.clone(), looked_up.clone());
        let relay = Relay::start().await;
        let service = NwcService::bending(&relay, move |method, mut answer| {
            if method == "pay_invoice" {
                answer["result"] = said.clone();
            }
            for (name, value) in
                changed.iter().filter(|_| method != "pay_invoice").filter_map(Value::as_object).flatten()
            {
                answer["result"][name] = value.clone();
            }
            Some(answer.to_string())
        })
        .await;
        let payment = nwc_payable(&service.payee).await;
        let outcome = nwc(&service).pay(&payment).await;
        assert_eq!(outcome.as_ref().err().map(PayError::kind), kind, "{paid} {looked_up:?}: {outcome:?}");
        assert_eq!(service.payee.payments(), 1);
    }
}

#[tokio::test]
async fn a_connection_that_breaks_after_the_wallet_paid_leaves_doubt() {
    let relay = Relay::start().await;
    let service =
        NwcService::bending(&relay, |method, answer| (method != "pay_invoice").then(|| answer.to_string()))
            .await;
    // The wallet pays, and its answer is lost with the connection.
    let wallet = nwc(&service);
    let payment = nwc_payable(&service.payee).await;
    let cut = async {
        while service.payee.payments() == 0 {
            tokio::task::yield_now().await;
        }
        relay.cut();
    };
    let (outcome, ()) = tokio::join!(wallet.pay(&payment), cut);
    let error = outcome.unwrap_err();
    assert_eq!(error.kind(), PayErrorKind::Uncertain, "{error:?}");
    assert_eq!(service.payee.payments(), 1);
}

#[tokio::test]
async fn what_is_not_sent_over_a_relay_is_not_paid() {
    let relay = Relay::start().await;
    let receives =
        NwcService::with(&relay, Setup { methods: "make_invoice lookup_invoice", ..Setup::default() }).await;
    let payment = nwc_payable(&receives.payee).await;
    let error = nwc(&receives).pay(&payment).await.unwrap_err();
    assert_eq!(error.kind(), PayErrorKind::NotSent, "{error:?}");
    assert_eq!(receives.calls().len(), 0);

    let uri = receives.uri();
    drop(relay);
    let gone = NwcWallet::new(NwcConfig::new(uri, Network::Regtest)).unwrap();
    let error = gone.pay(&payment).await.unwrap_err();
    assert_eq!(error.kind(), PayErrorKind::NotSent, "{error:?}");
}
