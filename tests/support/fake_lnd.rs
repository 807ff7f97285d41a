//! A fake of LND's REST API, as far as a seller uses it: it checks what LND
//! checks and answers in LND's words, and no Lightning is behind it.
#![allow(dead_code, unreachable_pub)] // each test binary uses a part
#![allow(clippy::result_large_err)] // an error is a response

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use l402::{LndBackend, LndConfig, Network};
use serde::Deserialize;
use serde_json::json;
use tempfile::TempDir;

use super::books::{Books, State as Paid};
use super::wire::{Server, serve};

/// The macaroon of the fake, as it stands in its file.
pub const MACAROON: [u8; 48] = [2; 48];
/// A macaroon that may look up, and make nothing.
pub const READ_ONLY: [u8; 47] = [2; 47];

pub struct FakeLnd {
    pub books: Books,
    server: Server,
    files: TempDir,
}

impl FakeLnd {
    pub async fn start() -> Self {
        let books = Books::new();
        let app = Router::new()
            .route("/v1/invoices", post(create))
            .route("/v1/invoice/{hash}", get(look_up))
            .fallback(async || grpc(404, 5, "Not Found"))
            .with_state(books.clone());
        Self { books, server: serve(app).await, files: tempfile::tempdir().unwrap() }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.server.address)
    }

    pub fn backend(&self) -> LndBackend {
        self.backend_with(&self.url(), &MACAROON)
    }

    pub fn backend_of(&self, configure: impl FnOnce(LndConfig) -> LndConfig) -> LndBackend {
        let file = self.files.path().join("invoice.macaroon");
        std::fs::write(&file, MACAROON).unwrap();
        LndBackend::new(configure(LndConfig::new(self.url(), Network::Regtest, file))).unwrap()
    }

    pub fn backend_with(&self, url: &str, macaroon: &[u8]) -> LndBackend {
        let file = self.files.path().join("invoice.macaroon");
        std::fs::write(&file, macaroon).unwrap();
        LndBackend::new(LndConfig::new(url, Network::Regtest, file)).unwrap()
    }
}

/// An error of grpc-gateway.
fn grpc(status: u16, code: u8, message: &str) -> Response {
    let body = json!({ "code": code, "message": message, "details": [] });
    (StatusCode::from_u16(status).unwrap(), Json(body)).into_response()
}

fn is_allowed(headers: &HeaderMap, writes: bool) -> Result<(), Response> {
    let Some(macaroon) = headers.get("grpc-metadata-macaroon") else {
        return Err(grpc(500, 2, "expected 1 macaroon, got 0"));
    };
    match hex::decode(macaroon).unwrap() {
        macaroon if macaroon == MACAROON => Ok(()),
        macaroon if macaroon == READ_ONLY && !writes => Ok(()),
        macaroon if macaroon == READ_ONLY => Err(grpc(500, 2, "permission denied")),
        _ => Err(grpc(500, 2, "verification failed: signature mismatch after caveat verification")),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Create {
    memo: String,
    value_msat: String,
    expiry: String,
    private: bool,
}

async fn create(State(books): State<Books>, headers: HeaderMap, body: Bytes) -> Result<Response, Response> {
    is_allowed(&headers, true)?;
    let Ok(create) = serde_json::from_slice::<Create>(&body) else {
        return Err(grpc(400, 3, "proto: syntax error"));
    };
    let number = |text: &str| text.parse::<i64>().map_err(|_| grpc(400, 3, "proto: invalid value for int64"));
    let (msat, expiry) = (number(&create.value_msat)?, number(&create.expiry)?);
    if create.private {
        books.note("private");
    }
    if create.memo.len() > 639 {
        return Err(grpc(500, 2, "memo too large"));
    }
    if msat > 1_000_000_000_000_000_000 {
        return Err(grpc(500, 2, "invoice amount is too large"));
    }
    let made = books.make_next(msat.unsigned_abs(), &create.memo, expiry.unsigned_abs(), None).await;
    let Some(entry) = made else { return Ok("{\"r_hash\":\"".into_response()) };
    let r_hash = STANDARD.encode(entry.preimage.payment_hash().as_bytes());
    Ok(Json(json!({
        "r_hash": r_hash, "payment_request": entry.bolt11, "add_index": "7", "payment_addr": r_hash,
    }))
    .into_response())
}

async fn look_up(
    State(books): State<Books>,
    Path(hash): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Response> {
    is_allowed(&headers, false)?;
    if hash.len() != 64 {
        return Err(grpc(500, 2, "encoding/hex: odd length hex string"));
    }
    let Some(entry) = books.find(|entry| entry.hash_hex() == hash) else {
        return Err(grpc(404, 5, "unable to locate invoice"));
    };
    let state = match entry.state {
        Paid::Open => "OPEN",
        Paid::Held => "ACCEPTED",
        Paid::Paid => "SETTLED",
        Paid::Expired => "CANCELED",
    };
    Ok(Json(json!({
        "memo": entry.description, "r_preimage": STANDARD.encode(entry.preimage_bytes()),
        "r_hash": STANDARD.encode(entry.preimage.payment_hash().as_bytes()),
        "value": (entry.amount_msat / 1000).to_string(), "value_msat": entry.amount_msat.to_string(),
        "settled": entry.state == Paid::Paid, "expiry": entry.expiry.to_string(), "state": state,
        "payment_request": entry.bolt11, "htlcs": [], "features": {},
    }))
    .into_response())
}
