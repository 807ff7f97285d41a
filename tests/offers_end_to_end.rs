//! Every offer by every method of payment, over sockets: a 402, a choice, a payment
//! request, the payment, its webhook, and the paid request.
#![allow(missing_docs)]

#[path = "support/fake_stripe.rs"]
mod fake_stripe;
#[path = "support/kiosk.rs"]
mod kiosk;
#[cfg(feature = "postgres")]
#[path = "support/servers.rs"]
mod servers;
#[path = "support/wire.rs"]
mod wire;

use std::sync::Arc;

use axum::Router;
use axum::routing::get;
use fake_stripe::FakeStripe;
use kiosk::{Kiosk, now, offers, text};
use l402::checkout::CheckoutConfig;
use l402::{
    Currency, DevBackend, ExchangeRate, FixedClock, Gate, Issuer, KeyRing, L402Layer, Ledger, MINUTE,
    MemoryLedger, Network, RootKey, SqliteLedger,
};
use serde_json::Value;
use tokio::net::TcpListener;

const METHODS: [&str; 4] = ["lightning", "credit_card", "bank", "onchain"];

/// What the handler said of each request that an offer pays for, then the refusal.
fn uses(offer: &str, basis: &str) -> Vec<(u16, String)> {
    let left: &[&str] = match offer {
        "once" => &["Some(0)"],
        "month" => &["None", "None", "None", "None"],
        "credits" => &["Some(2)", "Some(1)", "Some(0)"],
        _ => panic!("an offer"),
    };
    let mut uses: Vec<_> = left.iter().map(|left| (200, format!("{basis} {left}"))).collect();
    if offer != "month" {
        uses.push((402, "used_up".into()));
    }
    uses
}

/// Pays as the answer says, and gives what to present.
async fn pay(kiosk: &Kiosk, method: &str, answer: &Value) -> String {
    let ask = &answer["payment_request"];
    let token = text(&answer["token"]);
    match method {
        "lightning" => {
            let preimage = kiosk.wallet.pay(&text(&ask["lightning_invoice"])).unwrap();
            return format!("L402 {token}:{}", preimage.to_hex());
        }
        "credit_card" => kiosk.stripe.pay_at(&text(&ask["checkout_url"]), "card").await,
        "bank" => kiosk.bank.pay_at(&text(&ask["checkout_url"])).await,
        "onchain" => {
            assert_eq!((&*text(&ask["asset"]), &*text(&ask["chain"])), ("usdc", "base-mainnet"));
            kiosk.onchain.arrives_at(&text(&ask["address"])).await;
        }
        _ => panic!("a method"),
    }
    format!("L402 {token}")
}

async fn every_offer_by_every_method(ledger: Arc<dyn Ledger>) {
    let kiosk = Kiosk::new(ledger).await;
    for method in METHODS {
        for offer in ["once", "month", "credits"] {
            let refused = kiosk.refused().await;
            let listed = refused["offers"].as_array().unwrap();
            let listed = listed.iter().find(|listed| listed["id"] == offer).unwrap();
            let methods = listed["payment_methods"].as_array().unwrap();
            assert!(methods.iter().any(|listed| listed == method), "{listed}");

            let answer = kiosk.ask(&refused, offer, method).await;
            assert_eq!(answer.status, 200, "{}", answer.text());
            let answer = answer.json();
            assert!(!kiosk.is_paid(&answer).await, "{offer} by {method}");
            let unpaid = kiosk.get(&format!("L402 {}", text(&answer["token"]))).await;
            let expected =
                if method == "lightning" { (401, "missing_preimage") } else { (503, "payment_pending") };
            assert_eq!((unpaid.0, &*unpaid.1), expected, "{offer} by {method}");

            let credential = pay(&kiosk, method, &answer).await;
            // That it was not paid is believed for five seconds, unless this server is told.
            kiosk.clock.advance(std::time::Duration::from_secs(5));
            assert!(kiosk.is_paid(&answer).await, "{offer} by {method}");
            let basis = if method == "lightning" { "preimage" } else { "account" };
            for (n, expected) in uses(offer, basis).into_iter().enumerate() {
                // The token says the same as a bearer.
                let bearer =
                    answer["bearer"].as_str().filter(|_| n % 2 == 1).map(|bearer| format!("Bearer {bearer}"));
                let said = kiosk.get(bearer.as_ref().unwrap_or(&credential)).await;
                assert_eq!(said, expected, "{offer} by {method}, request {n}");
            }
        }
    }
    assert_eq!(kiosk.stripe.sent(), [200, 200, 200]);
}

#[tokio::test]
async fn every_offer_is_sold_by_every_method() {
    let dir = tempfile::tempdir().unwrap();
    let sqlite = SqliteLedger::open(dir.path().join("uses.db")).await.unwrap();
    every_offer_by_every_method(Arc::new(sqlite)).await;
    every_offer_by_every_method(Arc::new(MemoryLedger::new())).await;
}

#[cfg(feature = "postgres")]
#[tokio::test]
#[ignore = "needs a server: tests/servers/run"]
async fn every_offer_is_sold_by_every_method_with_postgresql() {
    let ledger = l402::PostgresLedger::connect(&servers::url("L402_TEST_POSTGRES")).await.unwrap();
    every_offer_by_every_method(Arc::new(ledger)).await;
}

/// The service has no route of the checkout, and the gateway none of the service:
/// they share key and ledger.
#[tokio::test]
async fn a_gateway_of_another_server_sells_by_the_ledger_that_they_share() {
    let dir = tempfile::tempdir().unwrap();
    let (clock, key) = (FixedClock::at(now()), RootKey::generate());
    let stripe = FakeStripe::start(now()).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}/l402", listener.local_addr().unwrap());
    let build = async || {
        let issuer = Issuer::builder(KeyRing::new(key.clone()), DevBackend::with_clock(clock.clone()))
            .with_network(Network::Regtest)
            .with_clock(clock.clone())
            .with_rates(10 * MINUTE, |_: Currency| async { Ok(ExchangeRate::per_bitcoin(10_000_000)?) })
            .with_ledger(SqliteLedger::open(dir.path().join("uses.db")).await.unwrap())
            .with_checkout(CheckoutConfig::new(&*base).add_method(stripe.method()))
            .build()
            .unwrap();
        let [once, month, credits] = offers();
        let gate = Gate::builder(&issuer, "forecast", once).add_offer(month).add_offer(credits);
        (issuer, gate.build().unwrap())
    };
    let ((_, gate), (issuer, _of_the_gateway)) = (build().await, build().await);
    let forecast = get(async || "sun").route_layer(L402Layer::new(gate));
    let service = wire::serve(Router::new().route("/forecast", forecast)).await;
    let routes = issuer.checkout().unwrap().router();
    let _gateway = wire::serve_on(listener, Router::new().nest("/l402", routes));
    stripe.set_endpoint(format!("{base}/webhooks/credit_card"));

    let refused = service.get("/forecast", &[]).await.json();
    let choice = serde_json::json!({
        "offer_id": "credits", "payment_method": "credit_card",
        "payment_context_token": refused["payment_context_token"],
    });
    let json = ["Content-Type: application/json"];
    let asked = text(&refused["payment_request_url"]);
    let answer = wire::post(&asked, &json, choice.to_string().as_bytes()).await.json();
    let line = format!("Authorization: Bearer {}", text(&answer["bearer"]));
    assert_eq!(service.get("/forecast", &[&line]).await.code(), "payment_pending");
    stripe.pay_at(&text(&answer["payment_request"]["checkout_url"]), "card").await;
    assert_eq!(stripe.sent(), [200]);
    // Nobody told the service, which asks the ledger again after five seconds.
    assert_eq!(service.get("/forecast", &[&line]).await.code(), "payment_pending");
    clock.advance(std::time::Duration::from_secs(5));
    for status in [200, 200, 200, 402] {
        assert_eq!(service.get("/forecast", &[&line]).await.status, status);
    }
}

/// The buyer who chose a chain and an asset is asked for no other.
#[tokio::test]
async fn a_gateway_is_told_of_asset_and_chain() {
    let kiosk = Kiosk::new(MemoryLedger::new()).await;
    let refused = kiosk.refused().await;
    let body = serde_json::json!({
        "id": "month", "payment_method": "onchain", "asset": "usdt", "chain": "tron",
        "payment_context_token": refused["payment_context_token"],
    });
    let url = text(&refused["payment_request_url"]);
    let answer = wire::post(&url, &["Content-Type: application/json"], body.to_string().as_bytes()).await;
    let ask = &answer.json()["payment_request"];
    assert_eq!((&*text(&ask["asset"]), &*text(&ask["chain"])), ("usdt", "tron"));
}
