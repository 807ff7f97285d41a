//! A gate over a backend, served over a socket, and a buyer.
#![allow(dead_code, unreachable_pub)] // each test binary uses a part

use std::error::Error as _;

use axum::Router;
use axum::routing::get;
use http::Request;
use l402::{
    Access, Cause, Gate, HOUR, Issuer, KeyRing, L402Layer, Network, Offer, PaymentBackend, Preimage, Price,
    RootKey,
};
use lightning_invoice::Bolt11Invoice;

use super::wire::{Answer, Server, serve};

fn gate(backend: impl PaymentBackend + 'static, price: Price, title: Option<&str>) -> Gate {
    let issuer = Issuer::builder(KeyRing::new(RootKey::generate()), backend)
        .with_network(Network::Regtest)
        .build()
        .unwrap();
    let mut offer = Offer::new(price, Access::pass(HOUR));
    if let Some(title) = title {
        offer = offer.with_title(title);
    }
    Gate::new(&issuer, "paid", offer).unwrap()
}

/// Sells an hour of `/paid`.
pub async fn sell(backend: impl PaymentBackend + 'static, price: Price, title: Option<&str>) -> Server {
    let gate = gate(backend, price, title);
    serve(Router::new().route("/paid", get(async || "served").route_layer(L402Layer::new(gate)))).await
}

/// A sale from the first request to the paid one; `price_msat` is what the
/// buyer is told and asked to pay.
pub async fn is_sold(
    backend: impl PaymentBackend + 'static,
    price: Price,
    price_msat: u64,
    pay: impl FnOnce(&str) -> Preimage,
) {
    let server = sell(backend, price, None).await;
    let challenge = ask(&server).await.challenge();
    let invoice: Bolt11Invoice = challenge.invoice().parse().unwrap();
    assert_eq!(invoice.amount_milli_satoshis(), Some(price_msat));
    assert_eq!(invoice.expiry_time().as_secs(), 300);
    let preimage = pay(challenge.invoice());
    let credential = format!("Authorization: L402 {}:{}", challenge.token().to_base64(), preimage.to_hex());
    let answer = server.get("/paid", &[&credential]).await;
    assert_eq!((answer.status, answer.text()), (200, "served"));
}

/// A 402, whose body and invoice name one price.
pub async fn ask(server: &Server) -> Answer {
    let answer = server.get("/paid", &[]).await;
    assert_eq!(answer.status, 402, "{}", answer.text());
    let invoice: Bolt11Invoice = answer.challenge().invoice().parse().unwrap();
    assert_eq!(answer.json()["l402"]["price_msat"].as_u64(), invoice.amount_milli_satoshis());
    answer
}

/// Asks once, is answered 503 with a Retry-After and no invoice, and tells why.
pub async fn cause(backend: impl PaymentBackend + 'static) -> String {
    let (mut head, ()) = Request::get("/paid").body(()).unwrap().into_parts();
    let answer = gate(backend, Price::sat(21), None).admit(&mut head).await.unwrap_err();
    assert_eq!(answer.status(), 503);
    assert!(answer.headers().contains_key("retry-after"));
    assert!(!answer.headers().contains_key("www-authenticate"));
    let cause = answer.extensions().get::<Cause>().expect("an outage has a cause");
    let mut text = cause.to_string();
    let mut next = cause.source();
    while let Some(error) = next {
        text = format!("{text}: {error}");
        next = error.source();
    }
    text
}
