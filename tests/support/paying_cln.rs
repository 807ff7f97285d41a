//! What of Core Lightning's CLNRest a payer uses, as far as a fake can have it.
#![allow(dead_code, unreachable_pub)] // each test binary uses a part

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use l402::client::ClnWallet;
use l402::{ClnConfig, Network};
use serde::Deserialize;
use serde_json::{Value, json};

use super::books::Books;
use super::payer::{Outgoing, Payments, Told};
use super::wire::{Server, serve};

/// A rune of the fake, for these restrictions.
pub fn rune(restrictions: &str) -> String {
    URL_SAFE.encode([&[0xc2; 32], restrictions.as_bytes()].concat())
}

/// What suffices.
pub const FOR_PAYMENTS: &str = "=0&method=xpay|method=listpays";

pub struct PayingCln {
    pub payments: Payments,
    server: Server,
}

impl PayingCln {
    pub async fn start() -> Self {
        let payments = Payments::to(&Books::new());
        let app = Router::new().route("/v1/{method}", post(call)).with_state(payments.clone());
        Self { payments, server: serve(app).await }
    }

    pub fn wallet(&self) -> ClnWallet {
        self.wallet_with(FOR_PAYMENTS)
    }

    pub fn wallet_with(&self, restrictions: &str) -> ClnWallet {
        wallet_at(&format!("http://{}", self.server.address), &rune(restrictions))
    }
}

pub fn wallet_at(url: &str, rune: &str) -> ClnWallet {
    ClnWallet::new(ClnConfig::new(url, Network::Regtest, rune)).unwrap()
}

async fn call(
    State(payments): State<Payments>,
    Path(method): Path<String>,
    headers: HeaderMap,
    Json(body): Json<Value>,
) -> Response {
    let error = |status: u16, code: i32, message: &str| {
        let body = json!({ "code": code, "message": message });
        (StatusCode::from_u16(status).unwrap(), Json(body)).into_response()
    };
    let restrictions = URL_SAFE.decode(&headers["rune"]).unwrap().split_off(32);
    if !String::from_utf8(restrictions).unwrap().contains(&format!("method={method}")) {
        return error(401, 1502, "Not permitted: method is not equal");
    }
    match &*method {
        "xpay" => xpay(&payments, body, error).await,
        "listpays" => (StatusCode::CREATED, Json(list(&payments, body["payment_hash"].as_str().unwrap())))
            .into_response(),
        _ => error(404, -32601, "Unknown command"),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Xpay {
    invstring: String,
    maxfee: u64,
    retry_for: u32,
}

async fn xpay(payments: &Payments, body: Value, error: impl Fn(u16, i32, &str) -> Response) -> Response {
    let xpay: Xpay = serde_json::from_value(body).unwrap();
    payments.note(format!("fee {}, {} s", xpay.maxfee, xpay.retry_for));
    match payments.pay(&xpay.invstring, Some(xpay.maxfee)).await {
        Told::Paid(paid) => {
            let paid = json!({
                "payment_preimage": paid.preimage, "amount_msat": paid.amount_msat,
                "amount_sent_msat": paid.amount_msat + paid.fee_msat, "failed_parts": 0, "successful_parts": 1,
            });
            (StatusCode::CREATED, Json(paid)).into_response()
        }
        Told::Failed => error(500, 205, "Failed: could not route"),
        Told::AlreadyPaid => error(500, 219, "Already paid"),
        Told::AlreadyInFlight => error(500, -1, "the node's own words"),
        Told::Half => (StatusCode::CREATED, "{\"payment_preimage\":\"").into_response(),
        Told::Status(status) => error(status, -1, "the node's own words"),
    }
}

/// What was tried before stands there, too.
fn list(payments: &Payments, hash: &str) -> Value {
    let row = |status: &str| json!({ "payment_hash": hash, "status": status, "created_at": 1, "amount_sent_msat": 0 });
    let parsed = hash.parse().unwrap();
    let pays = match payments.outgoing(parsed) {
        None => vec![],
        Some(Outgoing::Failed) => vec![row("failed")],
        Some(Outgoing::InFlight) => vec![row("failed"), row("pending")],
        Some(Outgoing::Paid) => {
            let (mut pay, paid) = (row("complete"), payments.paid(parsed));
            pay["preimage"] = paid.preimage.into();
            pay["amount_msat"] = paid.amount_msat.into();
            pay["amount_sent_msat"] = (paid.amount_msat + paid.fee_msat).into();
            vec![row("failed"), pay]
        }
    };
    json!({ "pays": pays })
}
