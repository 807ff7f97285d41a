//! A fake of Stripe's API, as far as a checkout uses it, written after its
//! documentation: it checks what is documented, answers in its form, signs its
//! webhooks and sends them again until they are taken. No money is behind it.
#![allow(dead_code, unreachable_pub)] // each test binary uses a part
#![allow(clippy::result_large_err)] // an error is a response

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::extract::{Form, Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use hmac::{Hmac, KeyInit as _, Mac as _};
use l402::checkout::{StripeCheckout, StripeConfig};
use serde_json::{Value, json};
use sha2::Sha256;

use super::wire::{self, Server, serve};

/// The restricted key of the fake, and the secrets of its endpoint.
pub const API_KEY: &str = "rk_test_51Fake4f5e";
pub const SECRET: &str = "whsec_fake0f1e2d3c4b5a";
pub const ROLLED_SECRET: &str = "whsec_fakea5b4c3d2e1f0";
/// The version that requests have to name.
pub const VERSION: &str = "2025-09-30.clover";

/// How often a webhook is sent until it is taken. Stripe does so for days.
const ATTEMPTS: usize = 5;

#[derive(Clone)]
pub struct FakeStripe {
    books: Arc<Mutex<Books>>,
    server: Arc<Server>,
}

struct Books {
    now: u64,
    sessions: Vec<Session>,
    /// What was answered for each key, and to what.
    answered: HashMap<String, (Fields, Value)>,
    /// Where webhooks go, and what they are signed with.
    endpoint: Option<String>,
    secrets: Vec<&'static str>,
    /// Status of each webhook that was sent.
    sent: Vec<u16>,
    /// The `payment_intents` that were asked for.
    retrieved: Vec<String>,
    events: u64,
}

type Fields = HashMap<String, String>;
type Shared = Arc<Mutex<Books>>;

#[derive(Clone, Debug)]
pub struct Session {
    pub fields: Fields,
    pub id: String,
    pub payment: Option<String>,
    pub status: &'static str,
    pub payment_status: &'static str,
    pub refunded: u64,
}

impl FakeStripe {
    /// It takes this for now.
    pub async fn start(now: u64) -> Self {
        let books = Books {
            now,
            sessions: Vec::new(),
            answered: HashMap::new(),
            endpoint: None,
            secrets: vec![SECRET],
            sent: Vec::new(),
            retrieved: Vec::new(),
            events: 0,
        };
        let books = Arc::new(Mutex::new(books));
        let app = Router::new()
            .route("/v1/checkout/sessions", post(create))
            .route("/v1/payment_intents/{id}", get(retrieve))
            .route("/c/pay/{id}", get(page).post(pay))
            .fallback(async || error(404, "invalid_request_error", "Unrecognized request URL"))
            .with_state(books.clone());
        Self { books, server: Arc::new(serve(app).await) }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.server.address)
    }

    pub fn config(&self) -> StripeConfig {
        StripeConfig::new(API_KEY, SECRET, "https://shop.example/thanks").with_url(self.url())
    }

    pub fn method(&self) -> StripeCheckout {
        StripeCheckout::new(self.config()).unwrap()
    }

    /// Where webhooks are sent from here on.
    pub fn set_endpoint(&self, url: impl Into<String>) {
        self.books().endpoint = Some(url.into());
    }

    /// What webhooks are signed with: several while a secret is rolled.
    pub fn set_secrets(&self, secrets: &[&'static str]) {
        self.books().secrets = secrets.to_vec();
    }

    pub fn now(&self) -> u64 {
        self.books().now
    }

    pub fn set_now(&self, now: u64) {
        self.books().now = now;
    }

    pub fn sessions(&self) -> Vec<Session> {
        self.books().sessions.clone()
    }

    /// The one session that was made.
    pub fn only(&self) -> Session {
        let sessions = self.sessions();
        assert_eq!(sessions.len(), 1);
        sessions[0].clone()
    }

    /// The status of each webhook that was sent.
    pub fn sent(&self) -> Vec<u16> {
        self.books().sent.clone()
    }

    pub fn retrieved(&self) -> Vec<String> {
        self.books().retrieved.clone()
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap()
    }

    /// A person pays at the page: by card, or by a debit that takes days.
    pub async fn pay_at(&self, checkout_url: &str, how: &str) {
        let lines = ["Content-Type: application/x-www-form-urlencoded"];
        let answer = wire::post(checkout_url, &lines, format!("how={how}").as_bytes()).await;
        assert_eq!(answer.status, 303, "{}", answer.text());
    }

    /// What became of the payment of a session, as Stripe knows it from here on,
    /// and the event that tells of it.
    pub fn event(&self, id: &str, kind: &str) -> Value {
        let books = &mut *self.books();
        let session = books.sessions.iter_mut().find(|session| session.id == id).unwrap();
        session.happens(kind);
        let object = session.object(kind);
        books.events += 1;
        event(books, kind, &object)
    }

    /// The header by which this body is signed at this moment, with all secrets.
    pub fn sign(&self, body: &[u8], t: u64) -> String {
        signature(&self.books().secrets, body, t)
    }

    /// Sends an event until it is taken, and gives the last answer.
    pub async fn deliver(&self, event: &Value) -> u16 {
        deliver(&self.books, &serde_json::to_vec(event).unwrap()).await
    }
}

impl Session {
    fn happens(&mut self, kind: &str) {
        let number = self.id.trim_start_matches("cs_test_");
        let payment = Some(format!("pi_{number}"));
        match kind {
            "checkout.session.completed" => {
                self.status = "complete";
                self.payment = payment;
            }
            "checkout.session.async_payment_succeeded" => self.payment_status = "paid",
            "checkout.session.expired" => self.status = "expired",
            "charge.refunded" => self.refunded = self.amount(),
            "charge.refunded in part" => self.refunded = self.amount() / 2,
            _ => {}
        }
    }

    fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", |value| value)
    }

    fn amount(&self) -> u64 {
        self.field("line_items[0][price_data][unit_amount]").parse().unwrap()
    }

    fn currency(&self) -> &str {
        self.field("line_items[0][price_data][currency]")
    }

    fn metadata(&self, prefix: &str) -> Value {
        let fields = self.fields.iter().filter_map(|(name, value)| {
            let key = name.strip_prefix(prefix)?.strip_suffix(']')?;
            Some((key.to_owned(), Value::from(&**value)))
        });
        Value::Object(fields.collect())
    }

    /// The object of an event of this kind.
    fn object(&self, kind: &str) -> Value {
        let (amount, currency) = (self.amount(), self.currency());
        let copied = self.metadata("payment_intent_data[metadata][");
        match kind {
            "charge.refunded" | "charge.refunded in part" | "charge.succeeded" => json!({
                "id": format!("ch_{}", self.id), "object": "charge", "amount": amount, "amount_captured": amount,
                "amount_refunded": self.refunded, "captured": true, "currency": currency, "disputed": false,
                "metadata": copied, "paid": true, "payment_intent": self.payment,
                "refunded": self.refunded == amount, "status": "succeeded",
            }),
            // It has metadata of its own, and none of the payment's.
            "charge.dispute.created" => json!({
                "id": format!("dp_{}", self.id), "object": "dispute", "amount": amount,
                "charge": format!("ch_{}", self.id), "currency": currency, "metadata": {},
                "payment_intent": self.payment, "reason": "fraudulent", "status": "needs_response",
            }),
            _ => json!({
                "id": self.id, "object": "checkout.session", "amount_subtotal": amount, "amount_total": amount,
                "automatic_tax": { "enabled": false }, "client_reference_id": self.field("client_reference_id"),
                "currency": currency, "expires_at": self.field("expires_at").parse::<u64>().unwrap(),
                "livemode": false, "metadata": self.metadata("metadata["), "mode": "payment",
                "payment_intent": self.payment, "payment_status": self.payment_status, "status": self.status,
                "success_url": self.field("success_url"), "url": null,
            }),
        }
    }
}

fn event(books: &Books, kind: &str, object: &Value) -> Value {
    json!({
        "id": format!("evt_{}", books.events), "object": "event", "api_version": VERSION,
        "created": books.now, "data": { "object": object }, "livemode": false, "pending_webhooks": 1,
        "request": { "id": null, "idempotency_key": null }, "type": kind.trim_end_matches(" in part"),
    })
}

/// `t=..,v1=..`, and the `v0` that test mode adds.
pub fn signature(secrets: &[&str], body: &[u8], t: u64) -> String {
    let mut header = format!("t={t}");
    for secret in secrets {
        let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
        mac.update(format!("{t}.").as_bytes());
        mac.update(body);
        header.extend([",v1=", &hex::encode(mac.finalize().into_bytes())]);
    }
    header + ",v0=6ffbb59b2300aae63f272406069a9788598b792a944a07aba816edb039989a39"
}

/// Each attempt is signed anew.
async fn deliver(books: &Shared, body: &[u8]) -> u16 {
    let mut status = 0;
    for _ in 0..ATTEMPTS {
        let (url, line) = {
            let books = books.lock().unwrap();
            let Some(url) = books.endpoint.clone() else { return 0 };
            (url, format!("Stripe-Signature: {}", signature(&books.secrets, body, books.now)))
        };
        status =
            wire::post(&url, &["Content-Type: application/json; charset=utf-8", &line], body).await.status;
        books.lock().unwrap().sent.push(status);
        if (200..300).contains(&status) {
            break;
        }
    }
    status
}

fn error(status: u16, kind: &str, message: &str) -> Response {
    let body = json!({ "error": { "type": kind, "message": message } });
    (StatusCode::from_u16(status).unwrap(), Json(body)).into_response()
}

fn wrong(message: &str) -> Response {
    error(400, "invalid_request_error", message)
}

fn authenticate(headers: &HeaderMap) -> Result<(), Response> {
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
    assert_eq!(header("stripe-version"), Some(VERSION), "requests name their version");
    match header("authorization") {
        Some(value) if value == format!("Bearer {API_KEY}") => Ok(()),
        _ => Err(error(401, "invalid_request_error", "Invalid API Key provided: rk_test_********")),
    }
}

async fn create(
    State(books): State<Shared>,
    headers: HeaderMap,
    Form(fields): Form<Fields>,
) -> Result<Response, Response> {
    authenticate(&headers)?;
    let books = &mut *books.lock().unwrap();
    let key = headers.get("idempotency-key").expect("a POST has a key").to_str().unwrap().to_owned();
    assert!((1..=255).contains(&key.len()));
    if let Some((asked, answer)) = books.answered.get(&key) {
        let same = "Keys for idempotent requests can only be used with the same parameters";
        return if *asked == fields {
            Ok(Json(answer).into_response())
        } else {
            Err(error(400, "idempotency_error", same))
        };
    }
    check(&fields, books.now)?;
    let id = format!("cs_test_{}", books.sessions.len() + 1);
    let session = Session {
        fields: fields.clone(),
        id: id.clone(),
        payment: None,
        status: "open",
        payment_status: "unpaid",
        refunded: 0,
    };
    let mut answer = session.object("checkout.session");
    let host = headers.get(header::HOST).unwrap().to_str().unwrap();
    answer["url"] = format!("http://{host}/c/pay/{id}#fidkdWxOYHwnPyd1blpxYHZxWjA0").into();
    books.sessions.push(session);
    books.answered.insert(key, (fields, answer.clone()));
    Ok(Json(answer).into_response())
}

/// What is documented of the parameters.
fn check(fields: &Fields, now: u64) -> Result<(), Response> {
    let text = |name: &str| fields.get(name).map_or("", |value| &**value);
    for (name, value) in fields {
        let bracket = name.split('[').next().unwrap();
        let known = [
            "adaptive_pricing",
            "client_reference_id",
            "expires_at",
            "line_items",
            "metadata",
            "mode",
            "payment_intent_data",
            "success_url",
        ];
        if !known.contains(&bracket) {
            return Err(wrong(&format!("Received unknown parameter: {name}")));
        }
        if value.is_empty() {
            return Err(wrong(&format!("You passed an empty string for '{name}'.")));
        }
        if name.contains("metadata[") && value.chars().count() > 500 {
            return Err(wrong("Metadata values can have up to 500 characters"));
        }
    }
    let number =
        |name: &str| text(name).parse::<u64>().map_err(|_| wrong(&format!("Invalid integer: {name}")));
    if text("mode") != "payment" || text("line_items[0][price_data][product_data][name]").is_empty() {
        return Err(wrong("Missing required param"));
    }
    if text("success_url").is_empty() {
        return Err(wrong("Missing required param: success_url."));
    }
    if text("client_reference_id").len() > 200 {
        return Err(wrong("Invalid string: client_reference_id must be at most 200 characters"));
    }
    if number("line_items[0][quantity]")? != 1 {
        return Err(wrong("one is sold"));
    }
    let currency = text("line_items[0][price_data][currency]");
    if !["chf", "eur", "jpy", "usd"].contains(&currency) {
        return Err(wrong(&format!("Invalid currency: {currency}.")));
    }
    if number("line_items[0][price_data][unit_amount]")? < 50 {
        return Err(wrong("The Checkout Session's total amount must convert to at least 50 cents."));
    }
    let left = number("expires_at")?.saturating_sub(now);
    if !(30 * 60..=24 * 60 * 60).contains(&left) {
        return Err(wrong("The `expires_at` timestamp must be between 30 minutes and 24 hours from now."));
    }
    Ok(())
}

async fn retrieve(
    State(books): State<Shared>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Result<Response, Response> {
    authenticate(&headers)?;
    let mut books = books.lock().unwrap();
    books.retrieved.push(id.clone());
    let session = books.sessions.iter().find(|session| session.payment.as_ref() == Some(&id));
    let session = session
        .ok_or_else(|| error(404, "invalid_request_error", &format!("No such payment_intent: '{id}'")))?;
    Ok(Json(json!({
        "id": id, "object": "payment_intent", "amount": session.amount(), "currency": session.currency(),
        "metadata": session.metadata("payment_intent_data[metadata]["), "status": "succeeded",
    }))
    .into_response())
}

/// What the person sees.
async fn page(State(books): State<Shared>, Path(id): Path<String>) -> Response {
    let books = books.lock().unwrap();
    let Some(session) = books.sessions.iter().find(|session| session.id == id) else {
        return error(404, "invalid_request_error", "No such session");
    };
    format!("{} {}", session.amount(), session.currency()).into_response()
}

/// The person pays. Stripe tells of it while it sends the browser back.
async fn pay(State(books): State<Shared>, Path(id): Path<String>, Form(form): Form<Fields>) -> Response {
    let (body, return_url) = {
        let books = &mut *books.lock().unwrap();
        let now = books.now;
        let session = books.sessions.iter_mut().find(|session| session.id == id && session.status == "open");
        let Some(session) = session.filter(|session| now < session.field("expires_at").parse().unwrap())
        else {
            return error(400, "invalid_request_error", "This Checkout Session has expired");
        };
        session.payment_status = if form["how"] == "card" { "paid" } else { "unpaid" };
        session.happens("checkout.session.completed");
        let (object, return_url) =
            (session.object("checkout.session"), session.field("success_url").to_owned());
        books.events += 1;
        (event(books, "checkout.session.completed", &object), return_url)
    };
    deliver(&books, &serde_json::to_vec(&body).unwrap()).await;
    (StatusCode::SEE_OTHER, [(header::LOCATION, return_url)]).into_response()
}
