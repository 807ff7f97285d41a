//! A fake of Core Lightning's CLNRest, as far as a seller uses it: it checks
//! what lightningd checks and answers in its words, and no Lightning is behind it.
#![allow(dead_code, unreachable_pub)] // each test binary uses a part

use std::sync::{Arc, Mutex};

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use l402::{ClnBackend, ClnConfig, Network};
use serde::Deserialize;
use serde_json::{Value, json};

use super::books::{Books, Entry, State as Paid};
use super::wire::{Server, serve};

/// A rune of the fake, for these restrictions.
pub fn rune(restrictions: &str) -> String {
    let mut bytes = vec![0xc1; 32];
    bytes.extend(restrictions.as_bytes());
    URL_SAFE.encode(bytes)
}

/// What suffices.
pub const FOR_INVOICES: &str = "=0&method=invoice|method=listinvoices";

#[derive(Clone)]
struct Node {
    books: Books,
    settings: Arc<Mutex<Settings>>,
}

#[derive(Clone, Default)]
pub struct Settings {
    /// Errors stand in an object, as in older versions.
    pub nested: bool,
    /// What the node warns of.
    pub warnings: Vec<&'static str>,
    /// `listinvoices` fails.
    pub list_fails: bool,
    /// The next request comes twice, and its first answer is lost.
    pub repeats: bool,
}

pub struct FakeCln {
    pub books: Books,
    settings: Arc<Mutex<Settings>>,
    server: Server,
}

impl FakeCln {
    pub async fn start() -> Self {
        let (books, settings) = (Books::new(), Arc::<Mutex<Settings>>::default());
        let node = Node { books: books.clone(), settings: settings.clone() };
        let app = Router::new().route("/v1/{method}", post(call)).with_state(node);
        Self { books, settings, server: serve(app).await }
    }

    pub fn set(&self, settings: Settings) {
        *self.settings.lock().unwrap() = settings;
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.server.address)
    }

    pub fn backend(&self) -> ClnBackend {
        backend_with(&self.url(), &rune(FOR_INVOICES))
    }
}

pub fn backend_with(url: &str, rune: &str) -> ClnBackend {
    ClnBackend::new(ClnConfig::new(url, Network::Regtest, rune)).unwrap()
}

struct Failure {
    status: u16,
    code: i32,
    message: String,
}

fn failure(status: u16, code: i32, message: impl Into<String>) -> Failure {
    Failure { status, code, message: message.into() }
}

async fn call(
    State(node): State<Node>,
    Path(method): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let settings = node.settings.lock().unwrap().clone();
    if std::mem::take(&mut node.settings.lock().unwrap().repeats) {
        drop(answer(&node.books, &settings, &headers, &method, &body).await);
    }
    match answer(&node.books, &settings, &headers, &method, &body).await {
        // 201, also where nothing is made.
        Ok(answer) => (StatusCode::CREATED, answer).into_response(),
        Err(Failure { status, code, message }) => {
            let error = json!({ "code": code, "message": message });
            let body = if settings.nested { json!({ "error": error }) } else { error };
            (StatusCode::from_u16(status).unwrap(), Json(body)).into_response()
        }
    }
}

async fn answer(
    books: &Books,
    settings: &Settings,
    headers: &HeaderMap,
    method: &str,
    body: &[u8],
) -> Result<String, Failure> {
    is_allowed(headers, method)?;
    books.note(method);
    match method {
        "invoice" => invoice(books, settings, body).await,
        "listinvoices" if settings.list_fails => Err(failure(500, -1, "the database is busy")),
        "listinvoices" => list(books, body),
        _ => Err(failure(404, -32601, format!("Unknown command '{method}'"))),
    }
}

fn is_allowed(headers: &HeaderMap, method: &str) -> Result<(), Failure> {
    let Some(rune) = headers.get("rune") else {
        return Err(failure(403, 1501, "Not authorized: Missing rune"));
    };
    let bytes = URL_SAFE.decode(rune).unwrap_or_default();
    if !bytes.starts_with(&[0xc1; 32]) {
        return Err(failure(401, 1501, "Not authorized: Not derived from master"));
    }
    let restrictions = String::from_utf8(bytes[32..].to_vec()).unwrap();
    if !restrictions.contains(&format!("method={method}")) {
        return Err(failure(401, 1502, format!("Not permitted: method is not equal to {method}")));
    }
    Ok(())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct New {
    amount_msat: u64,
    label: String,
    description: String,
    expiry: u64,
}

async fn invoice(books: &Books, settings: &Settings, body: &[u8]) -> Result<String, Failure> {
    let text = std::str::from_utf8(body).unwrap();
    let new: New = serde_json::from_str(text).map_err(|error| failure(500, -32602, error.to_string()))?;
    if text.contains("\\u") {
        return Err(failure(500, -32602, "description is invalid (note: we don't allow \\u)"));
    }
    if new.label.len() > 128 || new.description.len() >= 640 || new.amount_msat > 1_000_000_000_000_000_000 {
        return Err(failure(500, -32602, "too long, or too large"));
    }
    if new.amount_msat == 0 {
        return Err(failure(500, -32602, "amount_msat: should be positive msat or 'any'"));
    }
    if books.find(|entry| entry.label.as_deref() == Some(&new.label)).is_some() {
        return Err(failure(500, 900, format!("Duplicate label '{}'", new.label)));
    }
    let made = books.make_next(new.amount_msat, &new.description, new.expiry, Some(new.label)).await;
    let Some(entry) = made else { return Ok("{\"payment_hash\":\"".into()) };
    let mut made = json!({
        "payment_hash": entry.hash_hex(), "expires_at": 1_900_000_000_u64, "bolt11": entry.bolt11,
        "payment_secret": "09".repeat(32), "created_index": 1,
    });
    for warning in &settings.warnings {
        made[warning] = "Insufficient incoming capacity to pay invoice".into();
    }
    Ok(made.to_string())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    label: Option<String>,
    payment_hash: Option<String>,
}

fn list(books: &Books, body: &[u8]) -> Result<String, Failure> {
    let list: List = serde_json::from_slice(body).map_err(|error| failure(500, -32602, error.to_string()))?;
    if list.label.is_some() == list.payment_hash.is_some() {
        return Err(failure(500, -32602, "Can only specify one of label, payment_hash"));
    }
    let is_asked = |entry: &Entry| match (&list.label, &list.payment_hash) {
        (Some(label), _) => entry.label.as_ref() == Some(label),
        (_, hash) => Some(entry.hash_hex()) == *hash,
    };
    let invoices: Vec<Value> = books.find(is_asked).iter().map(row).collect();
    Ok(json!({ "invoices": invoices }).to_string())
}

fn row(entry: &Entry) -> Value {
    let status = match entry.state {
        Paid::Open | Paid::Held => "unpaid",
        Paid::Paid => "paid",
        Paid::Expired => "expired",
    };
    let mut row = json!({
        "label": entry.label, "bolt11": entry.bolt11, "payment_hash": entry.hash_hex(), "status": status,
        "amount_msat": entry.amount_msat, "description": entry.description, "created_index": 1,
    });
    if entry.state == Paid::Paid {
        row["payment_preimage"] = entry.preimage.to_hex().into();
    }
    row
}
