//! A fake of phoenixd's API, as far as a seller uses it: it checks what
//! phoenixd checks and answers in its words, and no Lightning is behind it.
#![allow(dead_code, unreachable_pub)] // each test binary uses a part
#![allow(clippy::result_large_err)] // an error is a response

use std::collections::HashMap;

use axum::extract::{Form, Path, Query, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use l402::{Network, PhoenixdBackend, PhoenixdConfig};
use serde_json::{Value, json};

use super::books::{Books, Entry, State as Paid};
use super::wire::{Server, serve};

/// The limited-access password of the fake.
pub const PASSWORD: &str = "limited-4f5e";

pub struct FakePhoenixd {
    pub books: Books,
    server: Server,
}

impl FakePhoenixd {
    pub async fn start() -> Self {
        let books = Books::new();
        let app = Router::new()
            .route("/createinvoice", post(create))
            .route("/payments/incoming", get(list))
            .route("/payments/incoming/{hash}", get(look_up))
            .route("/getinfo", get(info))
            .fallback(async || text(404, "Unknown endpoint (check api doc)"))
            .layer(from_fn(authenticate))
            .with_state(books.clone());
        Self { books, server: serve(app).await }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.server.address)
    }

    pub fn backend(&self) -> PhoenixdBackend {
        backend_with(&self.url(), PASSWORD)
    }
}

pub fn backend_with(url: &str, password: &str) -> PhoenixdBackend {
    PhoenixdBackend::new(PhoenixdConfig::new(url, Network::Regtest, password)).unwrap()
}

fn text(status: u16, text: &str) -> Response {
    (StatusCode::from_u16(status).unwrap(), text.to_owned()).into_response()
}

async fn authenticate(request: Request, inner: Next) -> Response {
    if is_allowed(request.headers()) {
        return inner.run(request).await;
    }
    text(401, "Invalid authentication (use basic auth with the http password set in phoenix.conf)")
}

fn is_allowed(headers: &HeaderMap) -> bool {
    let credentials =
        headers.get("authorization").and_then(|value| value.to_str().ok()?.strip_prefix("Basic "));
    credentials.is_some_and(|base64| STANDARD.decode(base64).unwrap() == format!(":{PASSWORD}").into_bytes())
}

async fn create(
    State(books): State<Books>,
    Form(form): Form<HashMap<String, String>>,
) -> Result<Response, Response> {
    books.note("createinvoice");
    let known = ["amountSat", "description", "expirySeconds", "externalId"];
    assert!(form.keys().all(|name| known.contains(&&**name)), "{form:?}");
    let number = |name: &str| {
        let wrong =
            || text(400, &format!("Request parameter {name} couldn't be parsed/converted to integer"));
        form.get(name).ok_or_else(wrong)?.parse::<i64>().map_err(|_| wrong())
    };
    let (sat, expiry) = (number("amountSat")?, number("expirySeconds")?);
    let description =
        form.get("description").ok_or_else(|| text(400, "Must provide either a description"))?;
    // As Kotlin counts.
    if description.encode_utf16().count() > 128 {
        return Err(text(400, "Request parameter description is too long (max 128 characters)"));
    }
    if sat > 1_000_000_000_000_000 {
        return Err(text(500, "amount is too large"));
    }
    let msat = sat.unsigned_abs() * 1_000;
    let made =
        books.make_next(msat, description, expiry.unsigned_abs(), form.get("externalId").cloned()).await;
    let Some(entry) = made else { return Ok("{\"amountSat\":21,\"paymentHash\":\"".into_response()) };
    Ok(Json(json!({ "amountSat": sat, "paymentHash": entry.hash_hex(), "serialized": entry.bolt11 }))
        .into_response())
}

/// Lists what was paid, and with `all` the rest too.
async fn list(State(books): State<Books>, Query(query): Query<HashMap<String, String>>) -> Json<Vec<Value>> {
    books.note("list");
    let all = query.get("all").is_some_and(|all| all == "true");
    let is_listed = |entry: &&Entry| {
        (all || entry.state == Paid::Paid)
            && query.get("externalId").is_none_or(|id| entry.label.as_ref() == Some(id))
    };
    Json(books.entries().iter().rev().filter(is_listed).take(20).map(row).collect())
}

async fn look_up(State(books): State<Books>, Path(hash): Path<String>) -> Response {
    if hash.len() != 64 {
        return text(400, "Request parameter paymentHash couldn't be parsed/converted to hex32");
    }
    match books.find(|entry| entry.hash_hex() == hash) {
        Some(entry) => Json(row(&entry)).into_response(),
        None => text(404, "Not found"),
    }
}

fn row(entry: &Entry) -> Value {
    let is_paid = entry.state == Paid::Paid;
    json!({
        "type": "incoming_payment", "subType": "lightning", "paymentHash": entry.hash_hex(),
        "preimage": entry.preimage.to_hex(), "externalId": entry.label, "description": entry.description,
        "invoice": entry.bolt11, "isPaid": is_paid, "isExpired": entry.state == Paid::Expired,
        "requestedSat": entry.amount_msat / 1_000, "receivedSat": if is_paid { entry.amount_msat / 1_000 } else { 0 },
        "fees": 0, "expiresAt": 1_900_000_000_000_u64, "createdAt": 1_800_000_000_000_u64,
    })
}

async fn info() -> Json<Value> {
    Json(json!({ "nodeId": "02".repeat(33), "channels": [], "chain": "regtest", "version": "0.8.0" }))
}
