//! The offers body of a 402: as it was published, valid under the schemas in the
//! tree, and safe whatever stands in a title.

#![allow(missing_docs)]

#[path = "support/market.rs"]
mod market;
#[path = "support/wire.rs"]
mod wire;

use std::collections::BTreeSet;

use l402::checkout::OffersVersion;
use l402::{Access, Challenge, MemoryLedger, Offer, Price};
use market::{BASE, Market, text};
use serde_json::{Value, json};

const SCHEMA_0_2_2: &str = include_str!("../schemas/offers-0.2.2.json");
const SCHEMA_1_0: &str = include_str!("../schemas/offers-1.0.json");
const PUBLISHED_0_2_2: &str = include_str!("vectors/offers_0_2_2.json");
const PUBLISHED_1_0: &str = include_str!("vectors/offers_1_0.json");

fn read(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn is_valid(schema: &str, body: &Value) {
    let validator = jsonschema::validator_for(&read(schema)).unwrap();
    let errors: Vec<_> = validator.iter_errors(body).map(|error| error.to_string()).collect();
    assert!(errors.is_empty(), "{errors:?}\n{body:#}");
}

fn keys(value: &Value) -> BTreeSet<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

/// Of the same kind: what one is, the other is.
fn is_alike(ours: &Value, published: &Value) -> bool {
    std::mem::discriminant(ours) == std::mem::discriminant(published)
}

#[test]
fn what_was_published_is_valid_and_what_is_broken_is_not() {
    let published = read(PUBLISHED_0_2_2)["response_402"].clone();
    is_valid(SCHEMA_0_2_2, &published);
    is_valid(SCHEMA_1_0, &read(PUBLISHED_1_0));
    let validator = jsonschema::validator_for(&read(SCHEMA_0_2_2)).unwrap();
    for (path, value) in [
        ("/offers/0/amount", json!(1.5)),
        ("/offers/0/amount", json!("100")),
        ("/offers/0/currency", json!("usd")),
        ("/offers/0/type", json!("rent")),
        ("/offers/0/payment_methods", json!([])),
        ("/payment_request_url", json!("javascript:alert(1)")),
        ("/version", json!("1.0")),
    ] {
        let mut broken = published.clone();
        *broken.pointer_mut(path).unwrap() = value;
        assert!(!validator.is_valid(&broken), "{path}");
    }
}

#[tokio::test]
async fn version_0_2_2_has_every_member_of_the_published_body() {
    let note = "Payment required for premium content";
    let market =
        Market::with(MemoryLedger::new(), |config| config.with_client_note(note), |i| i, |gate| gate).await;
    let answer = market.refused().await;
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    let (body, published) = (answer.json(), read(PUBLISHED_0_2_2)["response_402"].clone());
    is_valid(SCHEMA_0_2_2, &body);
    for (name, value) in published.as_object().unwrap() {
        assert!(is_alike(&body[name], value), "{name}: {}", body[name]);
    }
    assert_eq!(body["version"], published["version"]);
    assert_eq!(body["terms_url"], published["terms_url"]);
    assert_eq!(body["payment_request_url"], format!("{BASE}/payment-request"));
    assert_eq!(body["metadata"], json!({"resource_id": "GET /forecast", "client_note": note}));
    // Beside the members of the problem, which are what they were.
    for (name, value) in
        [("status", json!(402)), ("code", json!("missing_credential")), ("type", json!("about:blank"))]
    {
        assert_eq!(body[name], value);
    }
    assert_eq!(body["l402"]["offer"], "once");

    let offers = body["offers"].as_array().unwrap();
    assert_eq!(
        offers[0],
        json!({"id": "once", "title": "One-time Access", "description": "Access to the resource for a single session",
               "type": "one-time", "amount": 100, "currency": "USD",
               "payment_methods": ["lightning", "credit_card", "onchain"]})
    );
    assert_eq!(
        offers[1],
        json!({"id": "month", "title": "Monthly Subscription", "type": "subscription", "duration": "30 days",
               "amount": 1500, "currency": "EUR", "payment_methods": ["lightning", "credit_card", "onchain"]})
    );
    // Parts of a satoshi are rounded up; a card takes no bitcoin.
    assert_eq!(
        offers[2],
        json!({"id": "credits", "title": "1,000 credits", "type": "top-up", "balance": 1000,
               "amount": 5001, "currency": "BTC", "payment_methods": ["lightning", "onchain"]})
    );
    assert_eq!(offers.len(), 3);
    for (ours, published) in offers.iter().zip(published["offers"].as_array().unwrap()) {
        for name in keys(published).intersection(&keys(ours)) {
            assert!(is_alike(&ours[*name], &published[*name]), "{name}");
        }
    }
}

#[tokio::test]
async fn version_1_0_has_details_inline() {
    let version = |config: l402::checkout::CheckoutConfig| config.with_version(OffersVersion::V1_0);
    let more =
        |gate: l402::GateBuilder| gate.add_offer(Offer::new(Price::sat(1), Access::once()).with_id("fourth"));
    let market = Market::with(MemoryLedger::new(), version, |issuer| issuer, more).await;
    let answer = market.refused().await;
    let body = answer.json();
    is_valid(SCHEMA_1_0, &body);
    let published = read(PUBLISHED_1_0);
    for (name, value) in published.as_object().unwrap() {
        assert!(is_alike(&body[name], value), "{name}: {}", body[name]);
    }
    // Whoever keeps the numbers as they are written sees no rounding.
    for text in [
        r#""amount":1.00,"currency":"USD""#,
        r#""amount":15.00,"currency":"EUR""#,
        r#""amount":0.00005001,"currency":"BTC""#,
    ] {
        assert!(answer.text().contains(text), "{text}\n{}", answer.text());
    }
    assert_eq!(body["expiry"], "2030-03-17T17:51:40Z");
    let offers = body["offers"].as_array().unwrap();
    assert_eq!(offers.len(), 3, "at most three have an invoice");
    assert_eq!(
        market.card.asks().len() + market.onchain.asks().len(),
        0,
        "a checkout is made when it is asked for"
    );
    for (i, offer) in offers.iter().enumerate() {
        let lightning = &offer["payment_methods"][0];
        assert_eq!(lightning["payment_type"], "Lightning Network");
        let details = &lightning["payment_details"];
        if i == 0 {
            assert_eq!(details["invoice"], answer.challenge().invoice());
        }
        let challenge: Challenge =
            format!("L402 token=\"{}\", invoice=\"{}\"", text(&details["token"]), text(&details["invoice"]))
                .parse()
                .unwrap();
        let preimage = market.wallet.pay(challenge.invoice()).unwrap();
        let paid = challenge.token().credential(&preimage);
        assert_eq!(market.get(paid.to_str().unwrap()).await.0, 200, "{}", offer["id"]);
    }
    // The link of another method leads to where it is paid, and its token is the one that is then good.
    let card = &offers[1]["payment_methods"][1];
    assert_eq!(card["payment_type"], "Credit Card");
    let (link, token) =
        (text(&card["payment_details"]["payment_link"]), text(&card["payment_details"]["token"]));
    let answer = market.server.get(link.strip_prefix("https://api.example.com").unwrap(), &[]).await;
    assert_eq!(answer.status, 303, "{}", answer.text());
    assert!(answer.header("location").unwrap().starts_with("https://pay.example.com/"));
    let settled = Market::settled(&market.card.last(), "p1");
    assert_eq!(settled["amount"], 1500);
    assert_eq!(market.tell("credit_card", &settled).await.status, 200);
    assert_eq!(market.get(&format!("L402 {token}")).await, (200, "account None".into()));
}

#[tokio::test]
async fn what_stands_in_a_title_breaks_neither_json_nor_a_header() {
    let hostile = [
        "\"},{\"id\":\"x\",\"amount\":0",
        "</script><script>alert(1)</script>",
        "a\r\nSet-Cookie: a=b\r\n\r\n",
        "\0\u{1b}[31m\u{202e}\u{2028}\u{feff}",
        "\\u0022\\\"'`${x}",
    ];
    for text in hostile {
        let offer = Offer::new(Price::sat(21), Access::once())
            .with_id("first")
            .with_title(text)
            .with_description(text);
        for version in [OffersVersion::V0_2_2, OffersVersion::V1_0] {
            let (offer, note) = (offer.clone(), text.to_owned());
            let market = Market::with(
                MemoryLedger::new(),
                |config| config.with_version(version).with_client_note(note),
                |issuer| issuer,
                |gate| gate.with_offer(offer),
            )
            .await;
            let answer = market.server.get("/forecast?a=%22%3C/script%3E", &[]).await;
            assert_eq!(answer.status, 402);
            assert!(answer.header("set-cookie").is_none());
            let body = answer.json();
            is_valid(if version == OffersVersion::V1_0 { SCHEMA_1_0 } else { SCHEMA_0_2_2 }, &body);
            assert_eq!(body["offers"].as_array().unwrap().len(), 1);
            assert_eq!(body["offers"][0]["title"], text);
            assert_eq!(body["offers"][0]["description"], text);
            assert_eq!(body["metadata"]["client_note"], text);
            assert!(body["offers"][0]["amount"].as_f64().unwrap() > 0.0);
        }
    }
}

#[tokio::test]
async fn without_a_checkout_a_402_is_what_it_was() {
    let shop = wire::Shop::new();
    let gate = l402::Gate::new(&shop.issuer, "forecast", market::credits()).unwrap();
    let (mut head, ()) = http::Request::get("/").body(()).unwrap().into_parts();
    let refused = gate.admit(&mut head).await.unwrap_err();
    let body: Value = serde_json::from_slice(refused.body()).unwrap();
    assert_eq!(keys(&body), BTreeSet::from(["code", "detail", "l402", "status", "title", "type"]));
}
