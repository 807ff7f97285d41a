//! The page of a gate with a checkout: other ways to pay for each offer, and what
//! they open.

#![allow(missing_docs)]

#[path = "support/market.rs"]
mod market;
#[path = "support/wire.rs"]
mod wire;

use bytes::Bytes;
use http::{Request, Response};
use l402::checkout::{CheckoutConfig, OffersVersion, Subject};
use l402::{MemoryLedger, Page};
use market::{BASE, Market};
use serde_json::json;

const HTML: &str = "Accept: text/html";

async fn market(config: impl FnOnce(CheckoutConfig) -> CheckoutConfig) -> Market {
    let page = |issuer: l402::IssuerBuilder| issuer.with_page("/page", Page::new());
    Market::with(MemoryLedger::new(), config, page, |gate| gate).await
}

/// Whether the page's route says that this token was paid for.
async fn is_paid(market: &Market, token: &str) -> bool {
    let request = Request::get("/page").header("authorization", format!("L402 {token}"));
    let answer = market.issuer.serve_page(request.body(Bytes::new()).unwrap()).await;
    assert_eq!(answer.status().as_u16(), 200);
    answer.body() == r#"{"paid":true}"#
}

async fn submit(market: &Market, token: &str) -> Response<Bytes> {
    let body = format!("token={}&preimage=&back=%2Fforecast", token.replace('+', "%2B"));
    let request = Request::post("/page").header("content-type", "application/x-www-form-urlencoded");
    market.issuer.serve_page(request.body(Bytes::from(body)).unwrap()).await
}

fn sent(opened: &Response<Bytes>) -> String {
    let cookie = opened.headers()["set-cookie"].to_str().unwrap();
    format!("Cookie: {}", cookie.split(';').next().unwrap())
}

/// The links of the page, unescaped.
fn links(html: &str) -> Vec<String> {
    let links = html.split("data-checkout=\"").skip(1);
    links.map(|rest| rest.split('"').next().unwrap().replace("&amp;", "&")).collect()
}

#[tokio::test]
async fn each_offer_links_to_the_methods_that_take_its_price() {
    for version in [OffersVersion::V0_2_2, OffersVersion::V1_0] {
        let market = market(|config| config.with_version(version)).await;
        let page = market.refused_with(&[HTML]).await;
        let labels =
            ["Credit Card: One-time Access", "On-chain: 1,000 credits", "Credit Card: Monthly Subscription"];
        for label in labels {
            assert!(page.text().contains(label), "no {label}: {}", page.text());
        }
        assert!(!page.text().contains("Credit Card: 1,000 credits"), "a card takes no bitcoin");
        let links = links(page.text());
        assert!(
            links.iter().all(|link| link.starts_with(&format!("{BASE}/payment-request?offer_id="))),
            "{links:?}"
        );
        let link =
            links.iter().find(|link| link.contains("offer_id=month&payment_method=credit_card")).unwrap();
        let answer = market.server.get(link.strip_prefix("https://api.example.com").unwrap(), &[]).await;
        assert_eq!(answer.status, 303, "{}", answer.text());
        assert!(answer.header("location").unwrap().starts_with("https://pay.example.com/"));
        // The QR code and the links are what size depends on.
        assert!(page.body.len() < 40 * 1024, "{} bytes", page.body.len());
    }
}

#[tokio::test]
async fn what_an_account_paid_for_is_seen_and_kept_in_the_cookie() {
    let market = market(|config| config).await;
    let answer = market.choose("month", "credit_card").await;
    let token = answer["token"].as_str().unwrap();
    assert!(!is_paid(&market, token).await);
    let early = submit(&market, token).await;
    assert_eq!((early.status().as_u16(), early.headers().contains_key("set-cookie")), (503, false));

    let settled = Market::settled(&market.card.last(), "p1");
    assert_eq!(market.tell("credit_card", &settled).await.status, 200);
    assert!(is_paid(&market, token).await);
    let opened = submit(&market, token).await;
    assert_eq!(opened.status().as_u16(), 303);
    let admitted = market.server.get("/forecast", &[HTML, &sent(&opened)]).await;
    assert_eq!((admitted.status, admitted.all("vary")), (200, vec!["Authorization", "Cookie"]));

    // An invoice still needs its preimage: settled tokens are not admitted here.
    let page = market.refused_with(&[HTML]).await;
    assert!(!page.text().contains("data-sees"));
    let challenge = page.challenge();
    market.wallet.pay(challenge.invoice()).unwrap();
    let request =
        Request::get("/page").header("authorization", format!("L402 {}", challenge.token().to_base64()));
    let answer = market.issuer.serve_page(request.body(Bytes::new()).unwrap()).await;
    assert_eq!((answer.status().as_u16(), &answer.body()[..]), (400, &br#"{"paid":false}"#[..]));
    assert_eq!(submit(&market, &challenge.token().to_base64()).await.status().as_u16(), 400);
}

#[tokio::test]
async fn a_cookie_that_opens_nothing_any_more_does_not_stand_before_a_users_account() {
    let market = Market::with(
        MemoryLedger::new(),
        |config| config,
        |issuer| issuer.with_page("/page", Page::new()),
        |gate| gate.with_subject(|head| Some(Subject::new(head.headers.get("x-user")?))),
    )
    .await;
    // Bought and used up without logging in.
    let answer = market.choose("once", "credit_card").await;
    let settled = Market::settled(&market.card.last(), "p1");
    assert_eq!(market.tell("credit_card", &settled).await.status, 200);
    let cookie = sent(&submit(&market, answer["token"].as_str().unwrap()).await);
    assert_eq!(market.server.get("/forecast", &[&cookie]).await.status, 200);
    assert_eq!(market.server.get("/forecast", &[&cookie]).await.status, 402);

    // Then as a user who has units.
    let user = "X-User: ada";
    let refused = market.server.get("/forecast", &[user]).await;
    let context = &refused.json()["payment_context_token"];
    let ask = json!({"offer_id": "credits", "payment_method": "onchain", "payment_context_token": context});
    assert_eq!(market.ask(&ask).await.status, 200);
    let settled = Market::settled(&market.onchain.last(), "p2");
    assert_eq!(market.tell("onchain", &settled).await.status, 200);
    for cookie in [&*cookie, "Cookie: __Secure-l402-forecast=x", "Cookie: a=b"] {
        let answer = market.server.get("/forecast", &[user, cookie]).await;
        assert_eq!((answer.status, answer.text().starts_with("subject ")), (200, true), "{cookie}");
    }
    assert_eq!(market.server.get("/forecast", &["X-User: bob", &cookie]).await.status, 402);
}
