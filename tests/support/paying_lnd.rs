//! What of LND's REST API a payer uses, as far as a fake can have it.
#![allow(dead_code, unreachable_pub)] // each test binary uses a part
#![allow(clippy::result_large_err)] // an error is a response

use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use l402::client::LndWallet;
use l402::{LndConfig, Network, PaymentHash};
use serde::Deserialize;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_stream::StreamExt as _;

use super::books::Books;
use super::payer::{Outgoing, Payments, Told};
use super::wire::{Server, serve};

/// A macaroon for `offchain:write` and `offchain:read`.
pub const PAYS: [u8; 40] = [2; 40];

pub struct PayingLnd {
    pub payments: Payments,
    server: Server,
    files: TempDir,
}

impl PayingLnd {
    pub async fn start() -> Self {
        let payments = Payments::to(&Books::new());
        let app = Router::new()
            .route("/v2/router/send", post(send))
            .route("/v2/router/track/{hash}", get(track))
            .fallback(async || (StatusCode::NOT_FOUND, failure(5, "Not Found")))
            .with_state(payments.clone());
        Self { payments, server: serve(app).await, files: tempfile::tempdir().unwrap() }
    }

    pub fn wallet(&self) -> LndWallet {
        self.wallet_at(&format!("http://{}", self.server.address), &PAYS)
    }

    pub fn wallet_with(&self, macaroon: &[u8]) -> LndWallet {
        self.wallet_at(&format!("http://{}", self.server.address), macaroon)
    }

    pub fn wallet_at(&self, url: &str, macaroon: &[u8]) -> LndWallet {
        let file = self.files.path().join("pay.macaroon");
        std::fs::write(&file, macaroon).unwrap();
        LndWallet::new(LndConfig::new(url, Network::Regtest, file)).unwrap()
    }
}

/// An error of grpc-gateway.
fn failure(code: u8, message: &str) -> Json<Value> {
    Json(json!({ "code": code, "message": message, "details": [] }))
}

/// An error of a stream, before its first line.
fn stream_failure(status: u16, code: u8, message: &str) -> Response {
    let error = json!({ "error": { "code": code, "message": message, "details": [] } });
    (StatusCode::from_u16(status).unwrap(), Json(error)).into_response()
}

fn is_allowed(headers: &HeaderMap) -> Result<(), Response> {
    if hex::decode(&headers["grpc-metadata-macaroon"]).unwrap() == PAYS {
        return Ok(());
    }
    Err((StatusCode::INTERNAL_SERVER_ERROR, failure(2, "permission denied")).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Send {
    payment_request: String,
    fee_limit_msat: String,
    timeout_seconds: i32,
    no_inflight_updates: bool,
}

async fn send(
    State(payments): State<Payments>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Response> {
    is_allowed(&headers)?;
    let Ok(send) = serde_json::from_slice::<Send>(&body) else {
        return Err((StatusCode::BAD_REQUEST, failure(3, "proto: syntax error")).into_response());
    };
    assert!(send.no_inflight_updates && send.timeout_seconds > 0);
    let fee_limit: i64 = send.fee_limit_msat.parse().unwrap();
    payments.note(format!("fee {fee_limit}, {} s", send.timeout_seconds));
    let hash =
        |bolt11: &str| bolt11.parse::<lightning_invoice::Bolt11Invoice>().unwrap().payment_hash().to_string();
    match payments.pay(&send.payment_request, Some(fee_limit.unsigned_abs())).await {
        Told::Paid(paid) => {
            let paid = payment(&hash(&send.payment_request), "SUCCEEDED", paid.preimage, paid.fee_msat);
            Ok(format!("{paid}\n").into_response())
        }
        Told::Failed => {
            Ok(format!("{}\n", payment(&hash(&send.payment_request), "FAILED", None, 0)).into_response())
        }
        Told::AlreadyPaid => Err(stream_failure(409, 6, "invoice is already paid")),
        Told::AlreadyInFlight => Err(stream_failure(409, 6, "payment is in transition")),
        Told::Half => Ok("{\"result\":{\"payment_hash\":\"".into_response()),
        Told::Status(status) => Err(stream_failure(status, 2, "the node's own words")),
    }
}

async fn track(
    State(payments): State<Payments>,
    Path(hash): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Response> {
    is_allowed(&headers)?;
    let bytes: [u8; 32] = URL_SAFE.decode(&hash).unwrap().try_into().unwrap();
    let (hash, hex) = (PaymentHash::from_bytes(bytes), hex::encode(bytes));
    let line = match payments.outgoing(hash) {
        None => return Err(stream_failure(404, 5, "payment isn't initiated")),
        Some(Outgoing::InFlight) => {
            let line = format!("{}\n", payment(&hex, "IN_FLIGHT", None, 0));
            // The stream goes on until the payment ends.
            let lines = tokio_stream::iter([Ok::<_, std::io::Error>(line)]).chain(tokio_stream::pending());
            return Ok(Body::from_stream(lines).into_response());
        }
        Some(Outgoing::Failed) => payment(&hex, "FAILED", None, 0),
        Some(Outgoing::Paid) => {
            let paid = payments.paid(hash);
            payment(&hex, "SUCCEEDED", paid.preimage, paid.fee_msat)
        }
    };
    Ok(format!("{line}\n").into_response())
}

fn payment(hash: &str, status: &str, preimage: Option<String>, fee_msat: u64) -> Value {
    let reason = if status == "FAILED" { "FAILURE_REASON_NO_ROUTE" } else { "FAILURE_REASON_NONE" };
    json!({ "result": {
        "payment_hash": hash, "status": status, "fee_msat": fee_msat.to_string(), "fee_sat": "1",
        "payment_preimage": preimage.unwrap_or_else(|| "0".repeat(64)), "failure_reason": reason,
        "htlcs": [], "payment_index": "3",
    } })
}
