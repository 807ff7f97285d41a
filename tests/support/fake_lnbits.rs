//! A fake of a wallet of LNbits that pays: what it answers was read off LNbits
//! 1.6.2, and no Lightning is behind it.
#![allow(dead_code, unreachable_pub)] // each test binary uses a part

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use l402::client::LnbitsWallet;
use l402::{LnbitsConfig, Network, PaymentHash};
use serde_json::{Value, json};

use super::books::Books;
use super::payer::{Outgoing, Paid, Payments, Told};
use super::wire::{Server, serve};

pub const ADMIN_KEY: &str = "admin-1f2e3d";
pub const INVOICE_KEY: &str = "invoice-4c5b6a";

pub struct FakeLnbits {
    pub payments: Payments,
    server: Server,
}

impl FakeLnbits {
    pub async fn start() -> Self {
        let payments = Payments::to(&Books::new());
        let app = Router::new()
            .route("/api/v1/payments", post(pay))
            .route("/api/v1/payments/{hash}", get(look_up))
            .with_state(payments.clone());
        Self { payments, server: serve(app).await }
    }

    pub fn wallet(&self) -> LnbitsWallet {
        self.wallet_with(ADMIN_KEY)
    }

    pub fn wallet_with(&self, key: &str) -> LnbitsWallet {
        let url = format!("http://{}", self.server.address);
        LnbitsWallet::new(LnbitsConfig::new(url, Network::Regtest, key)).unwrap()
    }
}

fn error(status: u16, body: Value) -> Response {
    (StatusCode::from_u16(status).unwrap(), Json(body)).into_response()
}

async fn pay(State(payments): State<Payments>, headers: HeaderMap, Json(body): Json<Value>) -> Response {
    match headers["x-api-key"].to_str().unwrap() {
        ADMIN_KEY => {}
        INVOICE_KEY => return error(403, json!({ "detail": "Invalid adminkey." })),
        _ => return error(404, json!({ "detail": "Wallet not found." })),
    }
    assert_eq!(body["out"], true);
    payments.note(body.to_string());
    let failure = |detail: &str, status: &str| error(520, json!({ "detail": detail, "status": status }));
    let bolt11 = body["bolt11"].as_str().unwrap();
    match payments.pay(bolt11, None).await {
        Told::Paid(paid) => {
            let hash = bolt11.parse::<lightning_invoice::Bolt11Invoice>().unwrap().payment_hash().to_string();
            (StatusCode::CREATED, Json(row(&hash, "success", Some(&paid)))).into_response()
        }
        Told::Failed => failure("Payment failed: no route", "failed"),
        Told::AlreadyPaid => failure("Internal invoice already paid.", "failed"),
        Told::AlreadyInFlight => failure("Payment is still pending.", "pending"),
        Told::Half => "{\"payment_hash\":\"".into_response(),
        Told::Status(status) => error(status, json!({ "detail": "the server's own words" })),
    }
}

async fn look_up(
    State(payments): State<Payments>,
    Path(hash): Path<String>,
    headers: HeaderMap,
) -> Result<Json<Value>, Response> {
    if headers["x-api-key"] != ADMIN_KEY {
        return Ok(Json(json!({ "paid": true })));
    }
    let parsed: PaymentHash = hash.parse().unwrap();
    Ok(Json(match payments.outgoing(parsed) {
        None => return Err(error(404, json!({ "detail": "Payment does not exist." }))),
        Some(Outgoing::InFlight) => {
            json!({ "paid": false, "status": "pending", "details": row(&hash, "pending", None) })
        }
        Some(Outgoing::Failed) => {
            json!({ "paid": false, "status": "failed", "details": row(&hash, "failed", None) })
        }
        Some(Outgoing::Paid) => {
            let paid = payments.paid(parsed);
            json!({ "paid": true, "preimage": paid.preimage, "details": row(&hash, "success", Some(&paid)) })
        }
    }))
}

fn row(hash: &str, status: &str, paid: Option<&Paid>) -> Value {
    let signed = |msat: u64| -i64::try_from(msat).unwrap();
    json!({
        "checking_id": hash, "payment_hash": hash, "wallet_id": "w", "status": status, "memo": "",
        "amount": paid.map_or(-1, |paid| signed(paid.amount_msat)),
        "fee": paid.map_or(0, |paid| signed(paid.fee_msat)),
        "preimage": paid.and_then(|paid| paid.preimage.clone()),
    })
}
