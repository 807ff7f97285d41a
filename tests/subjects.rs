//! The application's own users are admitted from the accounts that they paid for.

#![allow(missing_docs)]

#[path = "support/market.rs"]
mod market;
#[path = "support/wire.rs"]
mod wire;

use std::sync::Arc;

use http::HeaderMap;
use l402::checkout::{CheckoutConfig, Subject};
use l402::{
    Access, CaveatRegistry, DAY, DevBackend, ErrorKind, Gate, GateBuilder, Issuer, KeyRing, Ledger,
    MemoryLedger, Network, Offer, Price, RootKey, SqliteLedger,
};
use market::{Market, text};
use serde_json::{Value, json};

/// Stands for a layer that has checked who the user is.
fn user(headers: &HeaderMap) -> Option<Subject> {
    Some(Subject::new(headers.get("x-user")?))
}

async fn with_users(ledger: impl Ledger + 'static) -> Market {
    Market::with(ledger, |c| c, |i| i, |gate| gate.with_subject(|head| user(&head.headers))).await
}

async fn get(market: &Market, name: &str) -> (u16, String) {
    let answer = market.server.get("/forecast", &[&format!("X-User: {name}")]).await;
    (answer.status, if answer.status == 200 { answer.text().to_owned() } else { answer.code() })
}

/// Asks as this user, and has the gateway say that it was paid.
async fn buy(market: &Market, name: &str, offer: &str, payment: &str) -> Value {
    let refused = market.server.get("/forecast", &[&format!("X-User: {name}")]).await;
    let context = text(&refused.json()["payment_context_token"]);
    let body = json!({"offer_id": offer, "payment_method": "onchain", "payment_context_token": context});
    let answer = market.ask(&body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(!market.is_paid(&answer.json()).await);
    assert_eq!(market.tell("onchain", &Market::settled(&market.onchain.last(), payment)).await.status, 200);
    answer.json()
}

async fn everything(ledger: Arc<dyn Ledger>) {
    let market = with_users(ledger).await;
    assert_eq!(get(&market, "ada").await, (402, "missing_credential".into()));
    let answer = buy(&market, "ada", "once", "p1").await;
    // The application's own authentication admits, and no token that could be passed on.
    assert!(answer["token"].is_null() && answer["bearer"].is_null());
    assert!(market.is_paid(&answer).await);
    assert_eq!(get(&market, "ada").await, (200, "subject Some(0)".into()));
    assert_eq!(get(&market, "ada").await, (402, "used_up".into()));
    assert_eq!(get(&market, "bob").await, (402, "missing_credential".into()), "it is nobody else's");

    // Bought twice, it is added up.
    let answer = buy(&market, "ada", "credits", "p2").await;
    assert_eq!(get(&market, "ada").await, (200, "subject Some(999)".into()));
    let again = json!({"payment": "p3", "order": market.onchain.last().order, "state": "settled",
                       "amount": 5001, "currency": "BTC"});
    assert_eq!(market.tell("onchain", &again).await.status, 200);
    assert_eq!(get(&market, "ada").await, (200, "subject Some(1998)".into()));
    assert!(market.is_paid(&answer).await);

    // A pass goes before uses, and lasts until it ends.
    buy(&market, "eve", "month", "p4").await;
    for _ in 0..3 {
        assert_eq!(get(&market, "eve").await, (200, "subject None".into()));
    }
    market.clock.advance(31 * DAY);
    assert_eq!(get(&market, "eve").await.0, 402);

    // What is refunded is over.
    buy(&market, "joe", "once", "p5").await;
    let refund = json!({"payment": "p5", "order": market.onchain.last().order, "state": "refunded"});
    assert_eq!(market.tell("onchain", &refund).await.status, 200);
    assert_eq!(get(&market, "joe").await, (402, "revoked".into()));
}

#[tokio::test]
async fn a_user_is_admitted_from_what_was_paid_for() {
    let dir = tempfile::tempdir().unwrap();
    everything(Arc::new(MemoryLedger::new())).await;
    everything(Arc::new(SqliteLedger::open(dir.path().join("uses.db")).await.unwrap())).await;
}

#[tokio::test]
async fn a_token_goes_before_the_user() {
    let market = with_users(MemoryLedger::new()).await;
    buy(&market, "ada", "once", "p1").await;
    let bad = market.server.get("/forecast", &["X-User: ada", "Authorization: L402 AgEE:00"]).await;
    assert_eq!(bad.status, 401, "it is judged, and no account used");
    assert_eq!(get(&market, "ada").await, (200, "subject Some(0)".into()));
    // By Lightning a user buys a token, as anybody does.
    let refused = market.server.get("/forecast", &["X-User: ada"]).await;
    let challenge = refused.challenge();
    let paid = challenge.token().credential(&market.wallet.pay(challenge.invoice()).unwrap());
    let line = format!("Authorization: {}", paid.to_str().unwrap());
    let answer = market.server.get("/forecast", &["X-User: ada", &line]).await;
    assert_eq!((answer.status, answer.text()), (200, "preimage Some(0)"));
}

#[tokio::test]
async fn a_gate_of_users_needs_a_checkout_and_binds_nothing() {
    let build = |caveats: CaveatRegistry, checkout: bool| {
        let builder = Issuer::builder(KeyRing::new(RootKey::generate()), DevBackend::new())
            .with_network(Network::Regtest)
            .with_ledger(MemoryLedger::new())
            .with_caveats(caveats);
        let builder = if checkout {
            builder.with_checkout(CheckoutConfig::new("https://a.example/l402"))
        } else {
            builder
        };
        let issuer = builder.build().unwrap();
        let offer = Offer::new(Price::sat(1), Access::uses(2));
        let builder: GateBuilder = Gate::builder(&issuer, "svc", offer);
        builder.with_subject(|head| user(&head.headers)).build().map(drop)
    };
    assert!(build(CaveatRegistry::new(), true).is_ok());
    assert_eq!(build(CaveatRegistry::new(), false).unwrap_err().kind(), ErrorKind::Offer);
    let binds = CaveatRegistry::new().bind("tenant", |_| None);
    assert_eq!(build(binds, true).unwrap_err().kind(), ErrorKind::Offer);
}

#[tokio::test]
async fn gates_within_one_another_take_one_use_of_a_user() {
    let market = with_users(MemoryLedger::new()).await;
    buy(&market, "ada", "credits", "p1").await;
    let request = || http::Request::get("/forecast").header("x-user", "ada").body(()).unwrap().into_parts().0;
    let mut head = request();
    let outer = market.gate.admit(&mut head).await.unwrap();
    head.extensions.insert(outer.grant().clone());
    let inner = market.gate.admit(&mut head).await.unwrap();
    assert_eq!(inner.grant().remaining(), Some(999));
    assert_eq!(market.gate.admit(&mut request()).await.unwrap().grant().remaining(), Some(998));
}
