//! What of phoenixd's API a payer uses, as far as a fake can have it.
#![allow(dead_code, unreachable_pub)] // each test binary uses a part

use std::collections::HashMap;

use axum::extract::{Form, Path, Request, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use l402::client::PhoenixdWallet;
use l402::{Network, PaymentHash, PhoenixdConfig};
use serde_json::json;

use super::books::Books;
use super::payer::{Outgoing, Payments, Told};
use super::wire::{Server, serve};

pub const FULL_PASSWORD: &str = "full-9a8b";
pub const LIMITED_PASSWORD: &str = "limited-7c6d";

pub struct PayingPhoenixd {
    pub payments: Payments,
    server: Server,
}

impl PayingPhoenixd {
    pub async fn start() -> Self {
        let payments = Payments::to(&Books::new());
        let app = Router::new()
            .route("/payinvoice", post(pay))
            .route("/payments/outgoingbyhash/{hash}", get(look_up))
            .layer(from_fn(authenticate))
            .with_state(payments.clone());
        Self { payments, server: serve(app).await }
    }

    pub fn wallet(&self) -> PhoenixdWallet {
        self.wallet_with(FULL_PASSWORD)
    }

    pub fn wallet_with(&self, password: &str) -> PhoenixdWallet {
        wallet_at(&self.url(), password)
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.server.address)
    }
}

pub fn wallet_at(url: &str, password: &str) -> PhoenixdWallet {
    PhoenixdWallet::new(PhoenixdConfig::new(url, Network::Regtest, password)).unwrap()
}

async fn authenticate(request: Request, inner: Next) -> Response {
    let credentials = request.headers()["authorization"].to_str().unwrap().strip_prefix("Basic ").unwrap();
    if STANDARD.decode(credentials).unwrap() == format!(":{FULL_PASSWORD}").into_bytes() {
        return inner.run(request).await;
    }
    (
        StatusCode::UNAUTHORIZED,
        "Invalid authentication (use basic auth with the http password set in phoenix.conf)",
    )
        .into_response()
}

async fn pay(State(payments): State<Payments>, Form(form): Form<HashMap<String, String>>) -> Response {
    payments.note(format!("{:?}", form.keys().collect::<Vec<_>>()));
    let bolt11 = &form["invoice"];
    let hash = bolt11.parse::<lightning_invoice::Bolt11Invoice>().unwrap().payment_hash().to_string();
    // The same status as what was sent has.
    let failed = |reason: &str| Json(json!({ "paymentHash": hash, "reason": reason })).into_response();
    match payments.pay(bolt11, None).await {
        Told::Paid(paid) => Json(json!({
            "recipientAmountSat": paid.amount_msat / 1_000, "routingFeeSat": paid.fee_msat / 1_000,
            "paymentId": "2e6f0d3a-0000-4000-8000-000000000000", "paymentHash": hash,
            "paymentPreimage": paid.preimage,
        }))
        .into_response(),
        Told::Failed => failed("no route found"),
        Told::AlreadyPaid => failed("this invoice has already been paid"),
        Told::AlreadyInFlight => failed("another payment is in progress for that invoice"),
        Told::Half => "{\"paymentHash\":\"".into_response(),
        Told::Status(status) => {
            (StatusCode::from_u16(status).unwrap(), "the node's own words").into_response()
        }
    }
}

async fn look_up(State(payments): State<Payments>, Path(hash): Path<String>) -> Response {
    let parsed: PaymentHash = hash.parse().unwrap();
    let (preimage, fees, completed_at) = match payments.outgoing(parsed) {
        None => return (StatusCode::NOT_FOUND, "Not found").into_response(),
        Some(Outgoing::InFlight) => (None, 0, None),
        Some(Outgoing::Failed) => (None, 0, Some(1_800_000_000_000_u64)),
        Some(Outgoing::Paid) => {
            let paid = payments.paid(parsed);
            (paid.preimage, paid.fee_msat, Some(1_800_000_000_000))
        }
    };
    // Some versions call everything paid that is completed.
    Json(json!({
        "type": "outgoing_payment", "subType": "lightning", "paymentHash": hash, "preimage": preimage,
        "isPaid": completed_at.is_some(), "sent": 22, "fees": fees, "completedAt": completed_at,
        "createdAt": 1_800_000_000_000_u64,
    }))
    .into_response()
}
