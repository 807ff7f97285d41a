//! A node, which would be somebody else's program: it signs invoices, tells
//! their state, and takes play money for them.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use axum::{Json, Router};
use bitcoin::hashes::{Hash as _, sha256};
use bitcoin::secp256k1::{Secp256k1, SecretKey};
use l402::{Entropy as _, Preimage, SystemEntropy};
use lightning_invoice::{Bolt11Invoice, Currency, InvoiceBuilder, PaymentSecret};
use serde_json::{Value, json};
use tokio::net::TcpListener;

pub(crate) const KEY: &str = "correct horse battery staple";

/// By payment hash: the preimage, and whether it was paid for.
type Invoices = HashMap<String, (Preimage, bool)>;

#[derive(Clone, Default)]
pub(crate) struct Node(Arc<Mutex<Invoices>>);

/// A node, and the address of its API.
pub(crate) async fn start() -> io::Result<(Node, String)> {
    let node = Node::default();
    let api = Router::new()
        .route("/invoices", post(make))
        .route("/invoices/{hash}", get(tell))
        .with_state(node.clone());
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();
    tokio::spawn(async move { axum::serve(listener, api).await });
    Ok((node, address))
}

impl Node {
    /// As a payer's wallet does, who learns the preimage.
    pub(crate) fn pay(&self, bolt11: &str) -> Option<Preimage> {
        let hash = bolt11.parse::<Bolt11Invoice>().ok()?.payment_hash().to_string();
        let mut invoices = self.invoices();
        let (preimage, is_paid) = invoices.get_mut(&hash)?;
        *is_paid = true;
        Some(preimage.clone())
    }

    fn invoices(&self) -> MutexGuard<'_, Invoices> {
        self.0.lock().expect("nobody panics while holding it")
    }
}

async fn make(
    State(node): State<Node>,
    headers: HeaderMap,
    Json(ask): Json<Value>,
) -> Result<Json<Value>, StatusCode> {
    if headers.get("x-api-key").is_none_or(|key| key != KEY) {
        return Err(StatusCode::UNAUTHORIZED);
    }
    let [key, secret, preimage] = [(); 3].map(|()| {
        let mut bytes = [0; 32];
        SystemEntropy.fill(&mut bytes);
        bytes
    });
    let key = SecretKey::from_slice(&key).map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    let preimage = Preimage::from_bytes(preimage);
    let hash = sha256::Hash::from_byte_array(*preimage.payment_hash().as_bytes());
    let invoice = InvoiceBuilder::new(Currency::Regtest)
        .description(ask["memo"].as_str().unwrap_or_default().to_owned())
        .payment_hash(hash)
        .payment_secret(PaymentSecret(secret))
        .amount_milli_satoshis(ask["msat"].as_u64().unwrap_or_default())
        .current_timestamp()
        .expiry_time(Duration::from_secs(ask["seconds"].as_u64().unwrap_or_default()))
        .min_final_cltv_expiry_delta(18)
        .build_signed(|message| Secp256k1::new().sign_ecdsa_recoverable(message, &key))
        .map_err(|_| StatusCode::UNPROCESSABLE_ENTITY)?;
    node.invoices().insert(hash.to_string(), (preimage, false));
    Ok(Json(json!({ "bolt11": invoice.to_string() })))
}

async fn tell(State(node): State<Node>, Path(hash): Path<String>) -> Json<Value> {
    let state = match node.invoices().get(&hash) {
        Some((_, true)) => "paid",
        Some((_, false)) => "open",
        None => "unknown",
    };
    Json(json!({ "state": state }))
}
