//! The real LNbits, which `tests/lnbits/run` starts: it sells over
//! `LnbitsBackend`, and over `LnurlBackend` as an LNURL-pay provider; and `LnbitsWallet`
//! pays.
#![cfg(all(feature = "client", feature = "lnbits", feature = "lnurl"))]

mod support {
    pub(crate) mod lnbits_server;
}

use std::error::Error as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use axum::Router;
use axum::routing::get;
use bytes::Bytes;
use http::header::{AUTHORIZATION, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, Request, Response, StatusCode};
use l402::checkout::CheckoutConfig;
use l402::client::{Client, ErrorKind, PayErrorKind, PaymentRequest, Wallet as _};
use l402::{
    Access, BackendError, BackendErrorKind, Cause, Challenge, Clock as _, DAY, FixedClock, Gate, Grant, HOUR,
    InvoiceState, Issuer, KeyRing, L402Layer, LnurlBackend, LnurlConfig, MemoryLedger, Network, Offer,
    PaymentBackend, PaymentHash, Price, RootKey, SystemClock, conformance,
};
use serde_json::{Value, json};
use support::lnbits_server::{Lnbits, send};
use tokio::net::TcpListener;

/// A server that sells, on a port of its own.
struct Shop {
    url: String,
    gate: Gate,
    clock: FixedClock,
    /// How often the handler was called.
    served: Arc<AtomicUsize>,
}

impl Shop {
    async fn open(backend: impl PaymentBackend + 'static, lifetime: Duration, price: Price) -> Self {
        let now = SystemClock.now().duration_since(UNIX_EPOCH).unwrap();
        let clock = FixedClock::at(now.as_secs());
        let issuer = Issuer::builder(KeyRing::new(RootKey::generate()), backend)
            .with_network(Network::Bitcoin)
            .with_ledger(MemoryLedger::new())
            .with_challenge_lifetime(lifetime)
            .with_clock(clock.clone())
            .build()
            .unwrap();
        let gate = Gate::new(&issuer, "forecast", Offer::new(price, Access::uses(3).within(HOUR))).unwrap();
        let served = Arc::new(AtomicUsize::new(0));
        let count = served.clone();
        let forecast = move |grant: Grant| async move {
            count.fetch_add(1, Ordering::SeqCst);
            format!("sun, {} left", grant.remaining().unwrap())
        };
        let app = Router::new().route("/", get(forecast).route_layer(L402Layer::new(gate.clone())));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { url, gate, clock, served }
    }

    async fn sells(backend: impl PaymentBackend + 'static) -> Self {
        Self::open(backend, Duration::from_secs(300), Price::sat(21)).await
    }

    async fn get(&self, credential: Option<&HeaderValue>) -> Response<Bytes> {
        let mut request = Request::get(&self.url).body(String::new()).unwrap();
        if let Some(credential) = credential {
            request.headers_mut().insert(AUTHORIZATION, credential.clone());
        }
        send(request).await
    }

    async fn challenge(&self) -> Challenge {
        let response = self.get(None).await;
        assert_eq!(response.status(), 402, "{:?}", response.body());
        response.headers()[WWW_AUTHENTICATE].to_str().unwrap().parse().unwrap()
    }

    /// Why nothing is sold.
    async fn error(&self) -> (BackendErrorKind, String) {
        let mut head = Request::get("/").body(()).unwrap().into_parts().0;
        let response = self.gate.admit(&mut head).await.unwrap_err();
        assert_eq!(response.status(), 503);
        let cause = response.extensions().get::<Cause>().unwrap();
        let error: &BackendError = cause.error().downcast_ref().unwrap();
        (error.kind(), error.source().unwrap().to_string())
    }

    fn served(&self) -> usize {
        self.served.load(Ordering::SeqCst)
    }
}

fn hash(challenge: &Challenge) -> PaymentHash {
    challenge.token().identifier().payment_hash
}

/// The status, and the code of a refusal.
fn said(response: &Response<Bytes>) -> (u16, String) {
    let body: Value = serde_json::from_slice(response.body()).unwrap_or_default();
    (response.status().as_u16(), body["code"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
#[ignore = "needs tests/lnbits/run"]
async fn a_paid_request_is_served() {
    let lnbits = Lnbits::from_env();
    let shop = Shop::sells(lnbits.backend()).await;
    let challenge = shop.challenge().await;
    let credential = challenge.token().credential(&lnbits.pay(challenge.invoice()).await);
    for left in [2, 1, 0] {
        let response = shop.get(Some(&credential)).await;
        assert_eq!(response.status(), 200, "{:?}", response.body());
        assert_eq!(*response.body(), format!("sun, {left} left"));
    }
    assert_eq!(shop.get(Some(&credential)).await.status(), 402);
    assert_eq!(shop.served(), 3);
}

/// Every offer of a 402, asked for where it says.
#[tokio::test]
#[ignore = "needs tests/lnbits/run"]
async fn every_offer_of_a_checkout_is_sold() {
    let lnbits = Lnbits::from_env();
    let issuer = Issuer::builder(KeyRing::new(RootKey::generate()), lnbits.backend())
        .with_network(Network::Bitcoin)
        .with_ledger(MemoryLedger::new())
        .with_checkout(CheckoutConfig::new("https://shop.example/l402"))
        .build()
        .unwrap();
    let [once, month, credits] = [Access::once(), Access::pass(30 * DAY), Access::uses(3)];
    let offer = |sat, access, id| Offer::new(Price::sat(sat), access).with_id(id);
    let gate = Gate::builder(&issuer, "forecast", offer(21, once, "once"))
        .add_offer(offer(900, month, "month"))
        .add_offer(offer(50, credits, "credits"));
    let app = Router::new()
        .route("/", get(async || "sun").route_layer(L402Layer::new(gate.build().unwrap())))
        .nest("/l402", issuer.checkout().unwrap().router());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });

    for (offer, uses) in [("once", 1), ("month", 4), ("credits", 3)] {
        let refused = send(Request::get(format!("{url}/")).body(String::new()).unwrap()).await;
        let refused: Value = serde_json::from_slice(refused.body()).unwrap();
        let choice = json!({
            "offer_id": offer, "payment_method": "lightning",
            "payment_context_token": refused["payment_context_token"],
        });
        let asked = format!("{url}/l402/payment-request");
        let answer = send(Request::post(asked).body(choice.to_string()).unwrap()).await;
        let answer: Value = serde_json::from_slice(answer.body()).unwrap();
        let invoice = answer["payment_request"]["lightning_invoice"].as_str().unwrap();
        let preimage = lnbits.pay(invoice).await;
        let credential = format!("L402 {}:{}", answer["token"].as_str().unwrap(), preimage.to_hex());
        let paid = || Request::get(format!("{url}/")).header(AUTHORIZATION, &credential);
        for _ in 0..uses {
            let response = send(paid().body(String::new()).unwrap()).await;
            assert_eq!(response.status(), 200, "{offer}: {:?}", response.body());
        }
        let status = send(paid().body(String::new()).unwrap()).await.status();
        assert_eq!(status, if offer == "month" { 200 } else { 402 }, "{offer}");
    }
}

/// The attack that strict settlement is there for: LNbits shows the preimage
/// of an unpaid invoice to whoever has the invoice key.
#[tokio::test]
#[ignore = "needs tests/lnbits/run"]
async fn an_unpaid_token_with_the_right_preimage_is_not_admitted() {
    let lnbits = Lnbits::from_env();
    let shop = Shop::sells(lnbits.backend()).await;
    let challenge = shop.challenge().await;
    let preimage = lnbits.preimage_for_nothing(&hash(&challenge).to_string()).await;
    assert_eq!(preimage.payment_hash(), hash(&challenge));
    let credential = challenge.token().credential(&preimage);

    for _ in 0..3 {
        let response = shop.get(Some(&credential)).await;
        assert_eq!(said(&response), (503, "payment_pending".to_owned()));
        assert!(response.headers().contains_key(RETRY_AFTER));
    }
    assert_eq!(shop.served(), 0);

    lnbits.pay(challenge.invoice()).await;
    shop.clock.advance(Duration::from_secs(5));
    assert_eq!(shop.get(Some(&credential)).await.status(), 200);
}

#[tokio::test]
#[ignore = "needs tests/lnbits/run"]
async fn an_invoice_that_expired_unpaid_admits_nobody() {
    let lnbits = Lnbits::from_env();
    let backend = lnbits.backend();
    let shop = Shop::open(backend.clone(), Duration::from_secs(1), Price::sat(21)).await;
    let challenge = shop.challenge().await;
    let preimage = lnbits.preimage_for_nothing(&hash(&challenge).to_string()).await;
    let closed = async {
        while backend.look_up(hash(&challenge), None).await.unwrap() != InvoiceState::Closed {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), closed).await.expect("a second passes");

    let response = shop.get(Some(&challenge.token().credential(&preimage))).await;
    assert_eq!(said(&response), (402, "not_paid".to_owned()));
    assert_eq!(shop.served(), 0);
}

#[tokio::test]
#[ignore = "needs tests/lnbits/run"]
async fn a_key_that_lnbits_does_not_know_is_an_error_of_the_credentials() {
    let lnbits = Lnbits::from_env();
    let shop = Shop::sells(lnbits.backend()).await;
    let challenge = shop.challenge().await;
    lnbits.pay(challenge.invoice()).await;

    let key = "0123456789abcdef0123456789abcdef";
    let wrong = lnbits.backend_with_key(key);
    let (kind, text) = Shop::sells(wrong.clone()).await.error().await;
    assert_eq!(kind, BackendErrorKind::Auth);
    assert!(text.contains("invoice key") && !text.contains(key), "{text}");
    for error in
        [wrong.check_health().await.unwrap_err(), wrong.look_up(hash(&challenge), None).await.unwrap_err()]
    {
        assert_eq!(error.kind(), BackendErrorKind::Auth, "{error:?}");
    }
}

#[tokio::test]
#[ignore = "needs tests/lnbits/run"]
async fn what_another_wallet_was_paid_is_unknown() {
    let lnbits = Lnbits::from_env();
    let shop = Shop::sells(lnbits.backend()).await;
    let challenge = shop.challenge().await;
    let state = lnbits.backend_of_another_wallet().look_up(hash(&challenge), None).await.unwrap();
    assert_eq!(state, InvoiceState::Unknown);
}

#[tokio::test]
#[ignore = "needs tests/lnbits/run"]
async fn an_amount_above_the_limit_of_the_server_is_rejected() {
    let lnbits = Lnbits::from_env();
    let shop = Shop::open(lnbits.backend(), Duration::from_secs(300), Price::sat(10_000_001)).await;
    assert_eq!(shop.error().await.0, BackendErrorKind::Rejected);
}

#[tokio::test]
#[ignore = "needs tests/lnbits/run"]
async fn lnbits_keeps_the_contract() {
    let lnbits = Lnbits::from_env();
    conformance::backend::check(Arc::new(lnbits.backend())).await;
    conformance::backend::check_settlement(Arc::new(lnbits.backend()), async |bolt11: String| {
        lnbits.pay(&bolt11).await;
    })
    .await;
}

/// One test: what the wallet has is watched over all payments.
#[tokio::test]
#[ignore = "needs tests/lnbits/run"]
async fn lnbits_keeps_the_contract_of_a_wallet_and_pays_the_gate() {
    let lnbits = Lnbits::from_env();
    let (wallet, had) = (lnbits.wallet(), lnbits.balance_msat().await);
    let spent = async || had - lnbits.balance_msat().await;
    conformance::wallet::check(Arc::new(wallet.clone()), Arc::new(lnbits.backend()), spent).await;

    // More than the wallet has.
    let shop = Shop::open(lnbits.backend(), Duration::from_secs(300), Price::sat(1_000_001)).await;
    let challenge = shop.challenge().await;
    let dear = PaymentRequest::new(challenge.invoice(), hash(&challenge), 1_000_001_000);
    conformance::wallet::check_unpayable(Arc::new(wallet.clone()), &dear, spent).await;

    let shop = Shop::sells(lnbits.backend()).await;
    let challenge = shop.challenge().await;
    let payment = PaymentRequest::new(challenge.invoice(), hash(&challenge), 21_000);
    let paid = wallet.pay(&payment).await.unwrap();
    assert_eq!(paid.fee_msat, 0, "on the server's own books");
    let response = shop.get(Some(&challenge.token().credential(&paid.preimage))).await;
    assert_eq!((response.status().as_u16(), &**response.body()), (200, &b"sun, 2 left"[..]));
}

#[tokio::test]
#[ignore = "needs tests/lnbits/run"]
async fn the_paying_client_buys_by_a_wallet_of_lnbits() {
    let lnbits = Lnbits::from_env();
    let shop = Shop::sells(lnbits.backend()).await;
    let client = Client::new(lnbits.shared_wallet());
    for left in [2, 1, 0, 2] {
        let paid = client.pay(&shop.url, 30_000).await.unwrap();
        assert_eq!(&**paid.response.body(), format!("sun, {left} left").as_bytes());
        let cost_msat = paid.receipt.map_or(0, |receipt| receipt.cost_msat());
        let is_expected = cost_msat == 21_000 && left == 2 || cost_msat == 0 && left < 2;
        assert!(is_expected, "{cost_msat} msat, {left} left");
    }
    assert_eq!(client.payer().spent().await.unwrap().total_msat, 42_000);
    // What it paid elsewhere is no proof for another seller.
    let challenge = shop.challenge().await;
    let payment = PaymentRequest::new(challenge.invoice(), hash(&challenge), 21_000);
    lnbits.shared_wallet().pay(&payment).await.unwrap();
    let asks = format!(r#"L402 token="another", invoice="{}""#, challenge.invoice());
    let thief =
        Router::new().fallback(async move || (StatusCode::PAYMENT_REQUIRED, [(WWW_AUTHENTICATE, asks)]));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, thief).await.unwrap() });
    assert_eq!(client.get(url).await.unwrap_err().kind(), ErrorKind::InvoiceUsed);
}

#[tokio::test]
#[ignore = "needs tests/lnbits/run"]
async fn only_an_admin_key_pays() {
    let lnbits = Lnbits::from_env();
    let challenge = Shop::sells(lnbits.backend()).await.challenge().await;
    let payment = PaymentRequest::new(challenge.invoice(), hash(&challenge), 21_000);
    let unknown = "0123456789abcdef0123456789abcdef";
    for wallet in [lnbits.wallet_that_may_not_pay(), lnbits.wallet_with_key(unknown)] {
        let error = wallet.pay(&payment).await.unwrap_err();
        assert_eq!(error.kind(), PayErrorKind::NotSent, "{error:?}");
        assert!(!format!("{error:?} {wallet:?}").contains(unknown));
    }
    // The payee's own record of the hash is no payment.
    let status = lnbits.wallet_that_may_not_pay().status(payment.payment_hash).await;
    assert_eq!(status.unwrap_err().kind(), BackendErrorKind::InvalidResponse);
}

fn lightning_address(lnbits: &Lnbits) -> LnurlConfig {
    LnurlConfig::new(&lnbits.address, Network::Bitcoin)
}

#[tokio::test]
#[ignore = "needs tests/lnbits/run"]
async fn a_lightning_address_sells_where_its_preimages_are_trusted() {
    let lnbits = Lnbits::from_env();
    let backend = LnurlBackend::new(lightning_address(&lnbits).dangerous_trust_preimage()).unwrap();
    let shop = Shop::sells(backend).await;
    let challenge = shop.challenge().await;
    let credential = challenge.token().credential(&lnbits.pay(challenge.invoice()).await);
    let response = shop.get(Some(&credential)).await;
    assert_eq!((response.status().as_u16(), &**response.body()), (200, &b"sun, 2 left"[..]));
    assert_eq!(shop.served(), 1);
}

/// LNbits gives no `verify` with its own Lightning addresses.
#[tokio::test]
#[ignore = "needs tests/lnbits/run"]
async fn a_lightning_address_without_lud_21_sells_nothing_unless_trusted() {
    let lnbits = Lnbits::from_env();
    let shop = Shop::sells(LnurlBackend::new(lightning_address(&lnbits)).unwrap()).await;
    let (kind, text) = shop.error().await;
    assert_eq!(kind, BackendErrorKind::Unsupported);
    assert!(text.contains("LUD-21") && text.contains("dangerous_trust_preimage"), "{text}");
}

#[tokio::test]
#[ignore = "needs tests/lnbits/run"]
async fn a_lightning_address_keeps_the_contract() {
    let lnbits = Lnbits::from_env();
    let backend = LnurlBackend::new(lightning_address(&lnbits).dangerous_trust_preimage()).unwrap();
    conformance::backend::check(Arc::new(backend)).await;
}

#[tokio::test]
#[ignore = "needs tests/lnbits/run"]
async fn an_address_that_nobody_has_is_not_healthy() {
    let host = Lnbits::from_env().address.split_once('@').unwrap().1.to_owned();
    let nobody = LnurlConfig::new(format!("nobody@{host}"), Network::Bitcoin);
    let error = LnurlBackend::new(nobody).unwrap().check_health().await.unwrap_err();
    assert_eq!(error.kind(), BackendErrorKind::Backend);
}
