//! A backend of one's own, held against the contract and then sold over:
//! `cargo run --example custom_backend`.
//!
//! The node is a small one with an HTTP API, as yours may have; `node.rs` is
//! that program. `MyNode` is all that it takes to be paid through it.

mod node;

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::http::{Request, request};
use axum::routing::get;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use l402::conformance::backend::{check, check_faults, check_settlement};
use l402::{
    Access, BackendError, BackendErrorKind, Capabilities, Challenge, Gate, HOUR, Invoice, InvoiceRequest,
    InvoiceState, Issuer, KeyRing, L402Layer, LookUpBy, Network, Offer, PaymentBackend, PaymentHash, Price,
    RootKey,
};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tower::ServiceExt as _;

struct MyNode {
    address: String,
    key: String,
}

#[async_trait]
impl PaymentBackend for MyNode {
    fn capabilities(&self) -> Capabilities {
        Capabilities::node(Network::Regtest).with_look_up(LookUpBy::PaymentHash)
    }

    async fn create_invoice(&self, ask: &InvoiceRequest) -> Result<Invoice, BackendError> {
        let memo: String = ask.description.chars().take(100).collect();
        let body = json!({ "msat": ask.amount_msat, "memo": memo, "seconds": ask.expiry.as_secs() });
        let answer = self.call(Request::post("/invoices"), &body).await?;
        answer["bolt11"].as_str().map(Invoice::from_bolt11).ok_or_else(|| invalid("no `bolt11`"))
    }

    async fn look_up(&self, hash: PaymentHash, _: Option<&str>) -> Result<InvoiceState, BackendError> {
        let path = format!("/invoices/{}", hex::encode(hash.as_bytes()));
        match self.call(Request::get(path), &Value::Null).await?["state"].as_str() {
            Some("open") => Ok(InvoiceState::Open),
            Some("paid") => Ok(InvoiceState::Settled),
            Some("unknown") => Ok(InvoiceState::Unknown),
            _ => Err(invalid("no `state` that we know")),
        }
    }

    async fn check_health(&self) -> Result<(), BackendError> {
        self.look_up([0; 32].into(), None).await.map(drop)
    }
}

impl MyNode {
    /// One request, over a connection of its own.
    async fn call(&self, request: request::Builder, body: &Value) -> Result<Value, BackendError> {
        let request = request.header("host", &self.address).header("x-api-key", &self.key);
        let request = request.header("content-type", "application/json");
        let request = request.body(Full::<bytes::Bytes>::from(body.to_string())).map_err(invalid)?;
        let stream = TcpStream::connect(&self.address).await.map_err(BackendError::connect)?;
        let (mut node, connection) = handshake(TokioIo::new(stream)).await.map_err(BackendError::connect)?;
        tokio::spawn(connection);
        let (head, body) = node.send_request(request).await.map_err(invalid)?.into_parts();
        // The crate bounds the time of a call; what is read of it is ours to bound.
        let body = Limited::new(body, 100_000).collect().await.map_err(invalid)?.to_bytes();
        let wait = head.headers.get("retry-after").and_then(|wait| wait.to_str().ok()?.parse().ok());
        let kind = match head.status.as_u16() {
            200 => return serde_json::from_slice(&body).map_err(invalid),
            401 | 403 => BackendErrorKind::Auth,
            422 => BackendErrorKind::Rejected,
            429 => BackendErrorKind::RateLimited { retry_after: wait.map(Duration::from_secs) },
            _ => BackendErrorKind::Backend,
        };
        Err(BackendError::new(kind, head.status.to_string()))
    }
}

fn invalid(cause: impl Into<Box<dyn Error + Send + Sync>>) -> BackendError {
    BackendError::new(BackendErrorKind::InvalidResponse, cause)
}

/// By hand, without the key.
impl fmt::Debug for MyNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MyNode").field("address", &self.address).finish_non_exhaustive()
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (node, address) = node::start().await?;
    let at = |address: &str| MyNode { address: address.to_owned(), key: node::KEY.to_owned() };
    let mine = Arc::new(at(&address));

    check(mine.clone()).await;
    println!("every invoice is as asked");
    check_settlement(mine.clone(), async |bolt11: String| drop(node.pay(&bolt11))).await;
    println!("a payment is told");
    check_faults(|url| Arc::new(at(url.trim_start_matches("http://"))), &[node::KEY]).await;
    println!("a node that fails does no harm");

    let keys = KeyRing::new(RootKey::generate());
    let issuer = Issuer::builder(keys, mine).with_network(Network::Regtest).build()?;
    let gate = Gate::new(&issuer, "forecast", Offer::new(Price::sat(21), Access::pass(HOUR)))?;
    let app = Router::new().route("/", get(|| async { "sunny" }).route_layer(L402Layer::new(gate)));

    let refused = app.clone().oneshot(Request::get("/").body(String::new())?).await?;
    println!("unpaid: {}", refused.status());
    let challenge: Challenge = refused.headers()["www-authenticate"].to_str()?.parse()?;
    let preimage = node.pay(challenge.invoice()).ok_or("the invoice is of this node")?;
    let paid = Request::get("/").header("authorization", challenge.token().credential(&preimage));
    println!("paid: {}", app.oneshot(paid.body(String::new())?).await?.status());
    Ok(())
}
