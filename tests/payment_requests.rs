//! From an offer to a paid request: the ways to pay, the ways to be recognised,
//! and what a payment request refuses.

#![allow(missing_docs)]

#[path = "support/market.rs"]
mod market;
#[path = "support/wire.rs"]
mod wire;

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use http::StatusCode;
use l402::checkout::{CheckoutConfig, OffersVersion, SignedWebhook};
use l402::macaroon::Macaroon;
use l402::{
    Access, CaveatRegistry, DAY, ErrorKind, Gate, Issuer, KeyRing, MINUTE, MemoryLedger, Network, Offer,
    Price, Revocation, RootKey, SqliteLedger,
};
use market::{BASE, Gateway, Market, credits, secret, text};
use serde_json::{Value, json};

#[tokio::test]
async fn the_published_requests_are_answered_as_published() {
    let market = Market::new(MemoryLedger::new()).await;
    let published: Value = serde_json::from_str(include_str!("vectors/offers_0_2_2.json")).unwrap();
    let offers = ["once", "once", "month"];
    for (exchange, offer) in published["payment_requests"].as_array().unwrap().iter().zip(offers) {
        for name in ["offer_id", "id"] {
            let mut request = exchange["request"].clone();
            request.as_object_mut().unwrap().remove("offer_id");
            request[name] = json!(offer);
            request["payment_context_token"] = json!(market.context().await);
            let answer = market.ask(&request).await;
            assert_eq!(
                (answer.status, answer.header("cache-control")),
                (200, Some("no-store")),
                "{}",
                answer.text()
            );
            let (ours, theirs) = (answer.json(), &exchange["response"]);
            for member in theirs.as_object().unwrap().keys() {
                assert!(!ours[member].is_null(), "{member}");
            }
            let names = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
            assert_eq!(names(&ours["payment_request"]), names(&theirs["payment_request"]));
            assert_eq!(ours["version"], theirs["version"]);
        }
    }
    let ask = market.onchain.last();
    assert_eq!((ask.asset.as_deref(), ask.chain.as_deref()), (Some("usdc"), Some("base-mainnet")));
    let ask = market.card.last();
    assert_eq!((ask.amount, &*ask.currency, &*ask.title), (1500, "EUR", "Monthly Subscription"));
}

#[tokio::test]
async fn a_buyer_by_lightning_is_known_by_token_and_preimage() {
    let market = Market::new(MemoryLedger::new()).await;
    for (offer, left) in [("once", "Some(0)"), ("month", "None"), ("credits", "Some(999)")] {
        let answer = market.choose(offer, "lightning").await;
        assert!(answer["bearer"].is_null());
        assert!(!market.is_paid(&answer).await);
        let invoice = text(&answer["payment_request"]["lightning_invoice"]);
        let token = text(&answer["token"]);
        assert_eq!(market.get(&format!("L402 {token}")).await, (401, "missing_preimage".into()));
        let preimage = market.wallet.pay(&invoice).unwrap();
        // What is not known to be paid is asked about again after some seconds.
        market.clock.advance(Duration::from_secs(5));
        assert!(market.is_paid(&answer).await);
        let expected = (200, format!("preimage {left}"));
        assert_eq!(market.get(&format!("L402 {token}:{}", preimage.to_hex())).await, expected);
    }
}

#[tokio::test]
async fn a_buyer_by_a_gateway_is_known_by_the_token_alone() {
    let dir = tempfile::tempdir().unwrap();
    let sqlite = SqliteLedger::open(dir.path().join("uses.db")).await.unwrap();
    let ledgers: [Arc<dyn l402::Ledger>; 2] = [Arc::new(MemoryLedger::new()), Arc::new(sqlite)];
    for ledger in ledgers {
        let market = Market::new(ledger).await;
        for (offer, left) in [
            ("once", ["Some(0)", "used"]),
            ("month", ["None", "None"]),
            ("credits", ["Some(999)", "Some(998)"]),
        ] {
            let answer = market.choose(offer, "onchain").await;
            assert_eq!(answer["payment_request"]["address"], "bcrt1qexample");
            let forms = ["token", "bearer"].map(|name| {
                let scheme = if name == "token" { "L402" } else { "Bearer" };
                format!("{scheme} {}", text(&answer[name]))
            });
            for form in &forms {
                assert_eq!(market.get(form).await, (503, "payment_pending".into()), "{offer}");
            }
            // No preimage makes it valid, be it one of an invoice that was paid.
            let paid = market.choose(offer, "lightning").await;
            let preimage = market.wallet.pay(&text(&paid["payment_request"]["lightning_invoice"])).unwrap();
            let with_preimage = format!("{}:{}", forms[0], preimage.to_hex());
            assert_eq!(market.get(&with_preimage).await, (401, "wrong_preimage".into()));
            assert!(!market.is_paid(&answer).await);
            assert_eq!(
                market.tell("onchain", &Market::settled(&market.onchain.last(), offer)).await.status,
                200
            );
            assert!(market.is_paid(&answer).await);
            assert_eq!(market.get(&with_preimage).await, (401, "wrong_preimage".into()));
            assert_eq!(market.get(&forms[0]).await, (200, format!("account {}", left[0])));
            let second = if left[1] == "used" {
                (402, "used_up".into())
            } else {
                (200, format!("account {}", left[1]))
            };
            assert_eq!(market.get(&forms[1]).await, second, "{offer}");
        }
    }
}

#[tokio::test]
async fn a_used_up_token_is_topped_up() {
    let market = Market::with(
        MemoryLedger::new(),
        |c| c,
        |i| i,
        |gate| gate.with_offer(Offer::new(Price::sat(5), Access::uses(2).within(DAY)).with_id("two")),
    )
    .await;
    let answer = market.choose("two", "onchain").await;
    let token = format!("Bearer {}", text(&answer["bearer"]));
    market.tell("onchain", &Market::settled(&market.onchain.last(), "p1")).await;
    for left in [1, 0] {
        assert_eq!(market.get(&token).await, (200, format!("account Some({left})")));
    }
    let refused = market.refused_with(&[&format!("Authorization: {token}")]).await;
    assert_eq!(refused.code(), "used_up");
    let context = text(&refused.json()["payment_context_token"]);
    let answer = market
        .ask(&json!({"offer_id": "two", "payment_method": "onchain", "payment_context_token": context}))
        .await
        .json();
    // The new token is of the same account, and worth no more before it is paid.
    let fresh = format!("L402 {}", text(&answer["token"]));
    assert_eq!(market.get(&fresh).await, (402, "used_up".into()));
    assert!(!market.is_paid(&answer).await);
    market.tell("onchain", &Market::settled(&market.onchain.last(), "p2")).await;
    assert_eq!(market.get(&token).await, (200, "account Some(1)".into()));
    assert_eq!(market.get(&fresh).await, (200, "account Some(0)".into()));
    assert!(market.is_paid(&answer).await);
}

fn base64(bearer: &str) -> Vec<u8> {
    base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(bearer).unwrap()
}

/// A market that sells `two`: two uses, by onchain; bound to the property of a
/// client where it has one.
async fn market_of_two(version: OffersVersion) -> Market {
    let bind = CaveatRegistry::new()
        .bind("cert", |head| Some(head.headers.get("x-cert")?.to_str().ok()?.to_owned()));
    Market::with(
        MemoryLedger::new(),
        |config| config.with_version(version),
        |issuer| issuer.with_caveats(bind),
        |gate| gate.with_offer(Offer::new(Price::sat(5), Access::uses(2).within(DAY)).with_id("two")),
    )
    .await
}

/// The account token that a 402 leads to, of either version.
async fn fresh_token(market: &Market, refused: &wire::Answer) -> String {
    let body = refused.json();
    let token = match body["payment_context_token"].as_str() {
        Some(context) => {
            let body =
                json!({"offer_id": "two", "payment_method": "onchain", "payment_context_token": context});
            text(&market.ask(&body).await.json()["bearer"])
        }
        None => text(&body["offers"][0]["payment_methods"][1]["payment_details"]["token"]),
    };
    format!("Bearer {token}")
}

/// Pays for what a 402 leads to, and gives its token.
async fn paid_token(market: &Market, lines: &[&str]) -> String {
    let refused = market.refused_with(lines).await;
    let token = fresh_token(market, &refused).await;
    if let Some(link) =
        refused.json()["offers"][0]["payment_methods"][1]["payment_details"]["payment_link"].as_str()
    {
        let path = link.strip_prefix("https://api.example.com").unwrap();
        assert_eq!(market.server.get(path, &[]).await.status, 200);
    }
    let settled = Market::settled(&market.onchain.last(), "p1");
    assert_eq!(market.tell("onchain", &settled).await.status, 200);
    token
}

#[tokio::test]
async fn a_holder_of_a_restricted_token_is_sold_a_new_one_of_its_own() {
    for version in [OffersVersion::V0_2_2, OffersVersion::V1_0] {
        let market = market_of_two(version).await;
        let token = paid_token(&market, &[]).await;
        let bytes = base64(token.strip_prefix("Bearer ").unwrap());
        let restricted = Macaroon::decode(&bytes).unwrap().attenuate("forecast_method=PUT").unwrap();
        let line = format!("Authorization: L402 {}", restricted.to_base64());
        let refused = market.refused_with(&[&line]).await;
        assert_eq!(refused.code(), "wrong_method");
        let fresh = fresh_token(&market, &refused).await;
        assert_eq!(market.get(&fresh).await, (503, "payment_pending".into()), "{version:?}");
        assert_eq!(market.get(&token).await, (200, "account Some(1)".into()));
    }
}

#[tokio::test]
async fn a_bound_token_is_not_exchanged_for_one_that_is_free() {
    for version in [OffersVersion::V0_2_2, OffersVersion::V1_0] {
        let market = market_of_two(version).await;
        let token = paid_token(&market, &["X-Cert: a"]).await;
        let line = format!("Authorization: {token}");
        assert_eq!(market.server.get("/forecast", &[&line, "X-Cert: a"]).await.status, 200);
        for other in ["X-Other: a", "X-Cert: b"] {
            let refused = market.refused_with(&[&line, other]).await;
            assert_eq!(refused.code(), "condition_failed");
            let fresh = format!("Authorization: {}", fresh_token(&market, &refused).await);
            let answer = market.server.get("/forecast", &[&fresh, other]).await;
            assert_eq!((answer.status, &*answer.code()), (503, "payment_pending"), "{version:?} {other}");
        }
    }
}

#[tokio::test]
async fn a_context_from_before_a_revocation_gives_no_token_of_what_was_revoked() {
    let market = market_of_two(OffersVersion::V0_2_2).await;
    let token = paid_token(&market, &[]).await;
    for _ in 0..2 {
        assert_eq!(market.get(&token).await.0, 200);
    }
    let refused = market.refused_with(&[&format!("Authorization: {token}")]).await;
    let context = text(&refused.json()["payment_context_token"]);
    market.clock.advance(Duration::from_secs(60));
    let revoked = Revocation::Service { name: "forecast".into(), issued_before: wire::NOW + 60 };
    market.issuer.revoke(revoked).await.unwrap();
    market.clock.advance(Duration::from_secs(60));
    let body = json!({"offer_id": "two", "payment_method": "onchain", "payment_context_token": context});
    let answer = market.ask(&body).await;
    assert_eq!(answer.status, 400);
    assert!(answer.text().contains("revoked"), "{}", answer.text());
    // Anybody else buys as ever.
    assert_eq!(market.choose("two", "onchain").await["payment_request"]["asset"], "btc");
}

#[tokio::test]
async fn what_a_402_does_not_list_is_not_sold_from_it() {
    let offer = |id: &str| Offer::new(Price::sat(5), Access::uses(2).within(DAY)).with_id(id);
    let mut sibling = None;
    let market = Market::with(
        MemoryLedger::new(),
        |config| config,
        |issuer| issuer,
        |gate| {
            sibling = Some(gate.clone().with_offer(offer("other")).build().unwrap());
            gate.with_offer(offer("new")).honour_offer(offer("old"))
        },
    )
    .await;
    let refused = market.refused().await.json();
    assert_eq!(refused["offers"].as_array().unwrap().len(), 1);
    for (id, status) in [("old", 400), ("other", 400), ("new", 200)] {
        let body = json!({"offer_id": id, "payment_method": "lightning", "payment_context_token": refused["payment_context_token"]});
        assert_eq!(market.ask(&body).await.status, status, "{id}");
    }
    assert!(sibling.is_some());
}

#[tokio::test]
async fn what_is_told_to_be_payable_is_credited_in_full() {
    // A gateway that takes payments for longer than an order is for.
    let patient = Gateway::start(Arc::new(|ask| {
        let page = json!({"checkout_url": "https://pay.example.com/", "expires_at": ask.expires_at + 86_400});
        (StatusCode::OK, page)
    }))
    .await;
    let method = SignedWebhook::new("patient", "Patient", &patient.url(), secret()).unwrap();
    let market =
        Market::with(MemoryLedger::new(), |config| config.add_method(method), |i| i, |gate| gate).await;
    let answer = market.choose("once", "patient").await;
    let told = text(&answer["expires_at"]);
    let other = market.choose("once", "credit_card").await;
    assert_eq!(told, text(&other["expires_at"]), "no longer than by another method");
    let ask = patient.last();
    let seconds = ask.expires_at - wire::NOW;
    // Until the last second of it the token says that it is not paid yet.
    let token = format!("L402 {}", text(&answer["token"]));
    market.clock.advance(Duration::from_secs(seconds - 1));
    assert_eq!(market.get(&token).await, (503, "payment_pending".into()), "payable until {told}");
    let settled = Market::settled(&ask, "p1");
    assert_eq!(market.tell("patient", &settled).await.status, 200);
    assert_eq!(market.get(&token).await.0, 200);
}

#[tokio::test]
async fn a_new_token_of_an_account_lasts_no_longer_before_it_is_paid() {
    let market = Market::with(
        MemoryLedger::new(),
        |c| c,
        |i| i,
        |gate| gate.with_offer(Offer::new(Price::sat(5), Access::uses(1).within(DAY)).with_id("one")),
    )
    .await;
    let bought = market.choose("one", "onchain").await;
    market.tell("onchain", &Market::settled(&market.onchain.last(), "p1")).await;
    let token = format!("Bearer {}", text(&bought["bearer"]));
    assert_eq!(market.get(&token).await.0, 200);
    market.clock.advance(Duration::from_secs(86_340));
    let refused = market.refused_with(&[&format!("Authorization: {token}")]).await;
    let context = text(&refused.json()["payment_context_token"]);
    let body = json!({"offer_id": "one", "payment_method": "onchain", "payment_context_token": context});
    let fresh = format!("L402 {}", text(&market.ask(&body).await.json()["token"]));
    market.clock.advance(2 * 60 * MINUTE);
    let (status, code) = market.get(&fresh).await;
    assert_ne!(status, 200, "{code}");
}

#[tokio::test]
async fn what_cannot_be_answered_is_told_in_words() {
    let market = Market::new(MemoryLedger::new()).await;
    let context = market.context().await;
    let request = |name: &str, value: Value| {
        let mut body =
            json!({"offer_id": "once", "payment_method": "credit_card", "payment_context_token": context});
        body[name] = value;
        body.to_string()
    };
    let mut altered = context.clone().into_bytes();
    altered[60] = if altered[60] == b'A' { b'B' } else { b'A' };
    for body in [
        request("offer_id", Value::Null),
        request("offer_id", json!("none")),
        request("offer_id", json!(7)),
        request("payment_method", Value::Null),
        request("payment_method", json!("cash")),
        request("payment_context_token", Value::Null),
        request("payment_context_token", json!("pct_abc123xyz")),
        request("payment_context_token", json!(String::from_utf8(altered).unwrap())),
        request("payment_context_token", json!("A".repeat(8000))),
        request("asset", json!("us dc")),
        request("chain", json!("x".repeat(65))),
        String::new(),
        "[]".into(),
        "{".into(),
        "{\"offer_id\":".repeat(500),
    ] {
        let answer = market.post("/l402/payment-request", &[], body.as_bytes()).await;
        assert_eq!(answer.status, 400, "{body}");
        assert!(answer.json()["error"].is_string());
    }
    // A card takes no bitcoin.
    let body = json!({"offer_id": "credits", "payment_method": "credit_card", "payment_context_token": market.context().await});
    assert_eq!(market.ask(&body).await.status, 400);
    let long = " ".repeat(20_000);
    assert_eq!(market.post("/l402/payment-request", &[], long.as_bytes()).await.status, 413);
    assert_eq!(market.server.send("PUT /l402/payment-request", &[]).await.status, 405);
    assert!(market.card.asks().is_empty());
}

#[tokio::test]
async fn a_context_is_for_one_offer_for_ten_minutes_and_admits_nobody() {
    let market = Market::new(MemoryLedger::new()).await;
    let context = market.context().await;
    for form in
        [format!("L402 {context}"), format!("Bearer {context}"), format!("L402 {context}:{}", "0".repeat(64))]
    {
        let (status, _) = market.get(&form).await;
        assert!([401, 402].contains(&status), "{form}");
    }
    let ask = async |offer: &str, method: &str| {
        let body = json!({"offer_id": offer, "payment_method": method, "payment_context_token": context});
        market.ask(&body).await
    };
    let first = ask("month", "credit_card").await;
    let order = market.card.last().order;
    assert_eq!(first.status, 200);
    assert_eq!(ask("once", "credit_card").await.status, 400, "another offer");
    // The same again is the same account and the same checkout; another method is another.
    assert_eq!(ask("month", "credit_card").await.status, 200);
    let asks = market.card.asks();
    assert_eq!((&asks[1].order, &asks[1].idempotency_key), (&order, &asks[0].idempotency_key));
    assert_eq!(ask("month", "onchain").await.status, 200);
    assert_eq!(ask("month", "lightning").await.status, 200);
    market.clock.advance(Duration::from_secs(600));
    let late = ask("month", "credit_card").await;
    assert_eq!(late.status, 400);
    assert!(late.text().contains("expired"), "{}", late.text());
}

#[tokio::test]
async fn a_status_url_is_a_secret() {
    let market = Market::new(MemoryLedger::new()).await;
    let url = text(&market.choose("month", "credit_card").await["status_url"]);
    let path = url.strip_prefix("https://api.example.com").unwrap();
    let context = market.context().await;
    for path in [
        "/l402/status".to_owned(),
        "/l402/status?of=".to_owned(),
        format!("/l402/status?of={context}"),
        format!("/l402/status?of={}", market.card.last().order),
        path[..path.len() - 1].to_owned(),
    ] {
        assert_eq!(market.server.get(&path, &[]).await.status, 404, "{path}");
    }
}

#[tokio::test]
async fn a_gateway_that_fails_does_no_harm() {
    for (status, reply, expected) in [
        (StatusCode::INTERNAL_SERVER_ERROR, json!({}), 503),
        (StatusCode::BAD_REQUEST, json!({}), 400),
        (StatusCode::OK, json!({}), 503),
        (StatusCode::OK, json!({"checkout_url": "javascript:alert(1)"}), 503),
        (StatusCode::OK, json!({"checkout_url": "https://a b"}), 503),
        (StatusCode::OK, json!({"checkout_url": "https://a", "expires_at": 1}), 503),
        (StatusCode::OK, json!({"address": "x", "asset": "y"}), 503),
        (StatusCode::OK, json!({"address": "x".repeat(300), "asset": "y", "chain": "z"}), 503),
    ] {
        let text = reply.to_string();
        let broken = Gateway::start(Arc::new(move |_| (status, reply.clone()))).await;
        let method = SignedWebhook::new("broken", "Broken", &broken.url(), secret()).unwrap();
        let market =
            Market::with(MemoryLedger::new(), |config| config.add_method(method), |i| i, |gate| gate).await;
        let body = json!({"offer_id": "once", "payment_method": "broken", "payment_context_token": market.context().await});
        let answer = market.ask(&body).await;
        assert_eq!(answer.status, expected, "{text}: {}", answer.text());
        assert!(answer.json()["error"].is_string());
        // The other ways are open.
        let answer = market.choose("once", "lightning").await;
        assert!(answer["payment_request"]["lightning_invoice"].is_string());
    }
}

#[tokio::test]
async fn payment_requests_are_limited_as_challenges_are() {
    let limit = |issuer: l402::IssuerBuilder| {
        issuer.with_client(|_| Some(l402::ClientId::new("one"))).with_client_challenges(3, MINUTE)
    };
    let market = Market::with(MemoryLedger::new(), |config| config, limit, |gate| gate).await;
    let context = market.context().await;
    let body = json!({"offer_id": "once", "payment_method": "credit_card", "payment_context_token": context});
    assert_eq!(market.ask(&body).await.status, 200);
    let unpaid = market.ask(&body).await.json();
    let answer = market.ask(&body).await;
    assert_eq!(answer.status, 429);
    assert!(answer.header("retry-after").is_some());
    assert_eq!(market.card.asks().len(), 2);
    // Anybody has an unpaid token: the ledger is asked about it under the same limit.
    let token = format!("Bearer {}", text(&unpaid["bearer"]));
    assert_eq!(market.get(&token).await, (429, "too_many_challenges".into()));
}

#[tokio::test]
async fn a_gate_without_a_checkout_knows_no_such_token() {
    let market = Market::new(MemoryLedger::new()).await;
    let answer = market.choose("month", "credit_card").await;
    market.tell("credit_card", &Market::settled(&market.card.last(), "p1")).await;
    let issuer = Issuer::builder(KeyRing::new(RootKey::new(wire::ROOT).unwrap()), market.wallet.clone())
        .with_network(Network::Regtest)
        .with_clock(market.clock.clone())
        .with_ledger(MemoryLedger::new())
        .build()
        .unwrap();
    let gate = Gate::new(&issuer, "forecast", credits()).unwrap();
    let code = async |authorization: String| {
        let (mut head, ()) =
            http::Request::get("/").header("authorization", authorization).body(()).unwrap().into_parts();
        let refused = gate.admit(&mut head).await.unwrap_err();
        let is_left = head.headers.contains_key("authorization");
        (refused.extensions().get::<l402::Refusal>().unwrap().code(), is_left)
    };
    assert_eq!(code(format!("L402 {}", text(&answer["token"]))).await, ("unknown_format", false));
    // A Bearer is somebody else's here.
    assert_eq!(code(format!("Bearer {}", text(&answer["bearer"]))).await, ("missing_credential", true));
}

#[tokio::test]
async fn a_revoked_service_and_a_revoked_key_end_tokens_of_accounts_too() {
    let market = Market::new(MemoryLedger::new()).await;
    let answer = market.choose("month", "credit_card").await;
    market.tell("credit_card", &Market::settled(&market.card.last(), "p1")).await;
    let token = format!("L402 {}", text(&answer["token"]));
    assert_eq!(market.get(&token).await.0, 200);
    market
        .issuer
        .revoke(Revocation::Service { name: "forecast".into(), issued_before: wire::NOW + 1 })
        .await
        .unwrap();
    assert_ne!(market.get(&token).await.0, 200);
}

#[tokio::test]
async fn foreign_bearers_are_left_alone() {
    let market = Market::new(MemoryLedger::new()).await;
    for bearer in ["eyJhbGciOiJIUzI1NiJ9.e30.x", "AgJC", "AgJC!!", "secret"] {
        let line = format!("Authorization: Bearer {bearer}");
        assert_eq!(market.server.get("/forecast", &[&line]).await.code(), "missing_credential", "{bearer}");
        let (mut head, ()) = http::Request::get("/")
            .header("authorization", format!("Bearer {bearer}"))
            .body(())
            .unwrap()
            .into_parts();
        assert!(market.gate.admit(&mut head).await.is_err());
        assert_eq!(head.headers["authorization"], format!("Bearer {bearer}"));
    }
}

#[tokio::test]
async fn a_checkout_that_cannot_work_does_not_build() {
    let gateway = Gateway::with_page().await;
    let method = |name: &str| SignedWebhook::new(name, "Card", &gateway.url(), secret()).unwrap();
    let build = |config: CheckoutConfig, ledger: bool| {
        let wallet = l402::DevBackend::new();
        let builder = Issuer::builder(KeyRing::new(RootKey::generate()), wallet)
            .with_network(Network::Regtest)
            .with_checkout(config);
        if ledger { builder.with_ledger(MemoryLedger::new()).build() } else { builder.build() }
    };
    let config = || CheckoutConfig::new(BASE);
    assert!(build(config(), false).is_ok(), "by Lightning alone");
    assert!(build(config().add_method(method("card")).add_method(method("bank")), true).is_ok());
    assert_eq!(build(config().add_method(method("card")), false).unwrap_err().kind(), ErrorKind::NoLedger);
    for bad in [
        config().add_method(method("lightning")),
        config().add_method(method("Card")),
        config().add_method(method("")),
        config().add_method(method("card")).add_method(method("card")),
        CheckoutConfig::new("api.example.com"),
        CheckoutConfig::new("https://api.example.com/"),
        CheckoutConfig::new("https://api.example.com/l402?a"),
        config().with_terms_url("javascript:alert(1)"),
    ] {
        assert_eq!(build(bad, true).unwrap_err().kind(), ErrorKind::Checkout);
    }
    assert!(SignedWebhook::new("card", "Card", "pay.example", secret()).is_err());
}
