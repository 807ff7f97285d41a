//! A stand-in for a provider of card payments. No card and no money is behind it:
//! it makes pages, takes whoever opens one for a payer, and calls back.

#![allow(unreachable_pub)]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use l402::checkout::{GatewayRequest, PaymentEvent, PaymentState, WebhookSecret, WebhookSender};
use l402::{Clock as _, Currency, Price, SystemClock};
use serde_json::json;

#[derive(Clone)]
struct Desk {
    own_url: String,
    secret: WebhookSecret,
    sender: WebhookSender,
    asks: Arc<Mutex<Vec<GatewayRequest>>>,
}

/// The provider, reached at `own_url`. It calls back at `webhook_url`.
pub fn app(own_url: &str, webhook_url: &str, secret: WebhookSecret) -> Result<Router, l402::Error> {
    let sender = WebhookSender::new(webhook_url, secret.clone())?;
    let desk = Desk { own_url: own_url.to_owned(), secret, sender, asks: Arc::default() };
    Ok(Router::new().route("/checkouts", post(make)).route("/pages/{n}", post(pay)).with_state(desk))
}

/// The server asks for a page.
async fn make(State(desk): State<Desk>, headers: HeaderMap, body: Bytes) -> Result<String, StatusCode> {
    desk.secret.verify(&headers, &body, SystemClock.now()).map_err(|_| StatusCode::UNAUTHORIZED)?;
    let ask: GatewayRequest = serde_json::from_slice(&body).map_err(|_| StatusCode::BAD_REQUEST)?;
    let expires_at = ask.expires_at;
    let mut asks = desk.asks.lock().unwrap();
    asks.push(ask);
    let url = format!("{}/pages/{}", desk.own_url, asks.len() - 1);
    Ok(json!({ "checkout_url": url, "expires_at": expires_at }).to_string())
}

/// A person pays. The server is told until it has taken it in.
async fn pay(State(desk): State<Desk>, Path(n): Path<usize>) -> Result<String, StatusCode> {
    let ask = desk.asks.lock().unwrap().get(n).cloned().ok_or(StatusCode::NOT_FOUND)?;
    let currency = Currency::from_code(&ask.currency).ok_or(StatusCode::BAD_REQUEST)?;
    let Ok(Price::Amount(amount)) = Price::try_minor(ask.amount, currency) else {
        return Err(StatusCode::BAD_REQUEST);
    };
    let paid = PaymentEvent::new(format!("payment-{n}"), ask.order, PaymentState::Settled { amount });
    while desk.sender.send(&paid).await.is_err() {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    Ok(format!("paid: {}", ask.title))
}
