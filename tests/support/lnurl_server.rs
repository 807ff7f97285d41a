//! An LNURL-pay provider in process, by the LUDs: one that keeps its promises,
//! until a test says otherwise.
#![allow(dead_code, unreachable_pub)] // a module of several tests, each of which uses a part

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use bitcoin::hashes::{Hash as _, sha256};
use bitcoin::secp256k1::{Secp256k1, SecretKey};
use l402::{Entropy as _, Preimage, SystemEntropy};
use lightning_invoice::{Bolt11Invoice, Currency, InvoiceBuilder, PaymentSecret};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What is fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The address.
    Terms,
    /// The `callback`.
    Invoice,
    /// The `verify` URL.
    Verify,
}

/// What stands in an invoice.
#[derive(Clone, Debug)]
pub struct Terms {
    pub amount_msat: u64,
    /// What its description hash is of; without it there is a description.
    pub metadata: Option<String>,
    pub expiry: Duration,
    /// Unix seconds.
    pub dated: u64,
}

type Bend = Box<dyn Fn(&mut Terms) + Send + Sync>;
type Change = Box<dyn Fn(Step, &mut Value) + Send + Sync>;
type Answer = Box<dyn Fn(Step) -> Option<Response> + Send + Sync>;

/// The provider. Runs until it is dropped.
pub struct Provider {
    address: SocketAddr,
    state: Arc<Inner>,
    task: JoinHandle<()>,
}

struct Inner {
    address: SocketAddr,
    invoices: Mutex<HashMap<String, Sold>>,
    terms: Mutex<Bend>,
    change: Mutex<Change>,
    answer: Mutex<Answer>,
    /// Paths and queries.
    requests: watch::Sender<Vec<String>>,
}

struct Sold {
    bolt11: String,
    preimage: Preimage,
    is_paid: bool,
}

impl Provider {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Inner {
            address,
            invoices: Mutex::default(),
            terms: Mutex::new(Box::new(|_| ())),
            change: Mutex::new(Box::new(|_, _| ())),
            answer: Mutex::new(Box::new(|_| None)),
            requests: watch::Sender::new(Vec::new()),
        });
        let app = Router::new()
            .route("/.well-known/lnurlp/{user}", get(terms))
            .route("/cb", get(invoice))
            .route("/verify/{hash}", get(verify))
            .with_state(state.clone());
        let task = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { address, state, task }
    }

    pub fn host(&self) -> SocketAddr {
        self.address
    }

    pub fn address(&self) -> String {
        format!("shop@{}", self.address)
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// What was asked for so far.
    pub fn requests(&self) -> Vec<String> {
        self.state.requests.borrow().clone()
    }

    /// Waits until so many requests were made.
    pub async fn was_asked(&self, times: usize) {
        self.state.requests.subscribe().wait_for(|requests| requests.len() >= times).await.unwrap();
    }

    /// Changes what stands in the invoices.
    pub fn set_terms(&self, terms: impl Fn(&mut Terms) + Send + Sync + 'static) {
        *self.state.terms.lock().unwrap() = Box::new(terms);
    }

    /// Changes what is answered.
    pub fn set_change(&self, change: impl Fn(Step, &mut Value) + Send + Sync + 'static) {
        *self.state.change.lock().unwrap() = Box::new(change);
    }

    /// Answers something else altogether, where there is something.
    pub fn set_answer(&self, answer: impl Fn(Step) -> Option<Response> + Send + Sync + 'static) {
        *self.state.answer.lock().unwrap() = Box::new(answer);
    }

    /// Pays an invoice of this provider.
    pub fn pay(&self, bolt11: &str) -> Preimage {
        let mut invoices = self.state.invoices.lock().unwrap();
        let sold = invoices.get_mut(&hash_of(bolt11)).unwrap();
        sold.is_paid = true;
        sold.preimage.clone()
    }

    /// Makes an invoice that nobody asked for.
    pub fn make(&self, amount_msat: u64) -> String {
        self.state.make(amount_msat)
    }

    /// The preimage of an invoice, paid or not: what a provider knows.
    pub fn preimage(&self, bolt11: &str) -> Preimage {
        self.state.invoices.lock().unwrap()[&hash_of(bolt11)].preimage.clone()
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub fn hash_of(bolt11: &str) -> String {
    bolt11.parse::<Bolt11Invoice>().unwrap().payment_hash().to_string()
}

impl Inner {
    fn answer(&self, step: Step, request: String, mut answer: Value) -> Response {
        self.requests.send_modify(|requests| requests.push(request));
        if let Some(answer) = (self.answer.lock().unwrap())(step) {
            return answer;
        }
        (self.change.lock().unwrap())(step, &mut answer);
        Json(answer).into_response()
    }

    fn metadata(&self, user: &str) -> String {
        format!("[[\"text/plain\",\"to a shop\"],[\"text/identifier\",\"{user}@{}\"]]", self.address)
    }

    fn make(&self, amount_msat: u64) -> String {
        let mut preimage = [0; 32];
        SystemEntropy.fill(&mut preimage);
        let preimage = Preimage::from_bytes(preimage);
        #[expect(clippy::disallowed_methods, reason = "a provider has a clock of its own")]
        let dated = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let mut terms = Terms {
            amount_msat,
            metadata: Some(self.metadata("shop")),
            expiry: Duration::from_secs(3_600),
            dated,
        };
        (self.terms.lock().unwrap())(&mut terms);
        let key = SecretKey::from_slice(&[1; 32]).unwrap();
        let builder = InvoiceBuilder::new(Currency::Regtest);
        let builder = match &terms.metadata {
            Some(metadata) => builder.description_hash(sha256::Hash::hash(metadata.as_bytes())),
            None => builder.description("to a shop".to_owned()),
        };
        let bolt11 = builder
            .payment_hash(sha256::Hash::from_byte_array(*preimage.payment_hash().as_bytes()))
            .payment_secret(PaymentSecret([2; 32]))
            .amount_milli_satoshis(terms.amount_msat)
            .timestamp(UNIX_EPOCH + Duration::from_secs(terms.dated))
            .expiry_time(terms.expiry)
            .min_final_cltv_expiry_delta(18)
            .build_signed(|message| Secp256k1::new().sign_ecdsa_recoverable(message, &key))
            .unwrap()
            .to_string();
        let sold = Sold { bolt11: bolt11.clone(), preimage, is_paid: false };
        self.invoices.lock().unwrap().insert(hash_of(&bolt11), sold);
        bolt11
    }
}

async fn terms(State(state): State<Arc<Inner>>, Path(user): Path<String>) -> Response {
    let answer = json!({
        "tag": "payRequest",
        "callback": format!("http://{}/cb", state.address),
        "minSendable": 1_000,
        "maxSendable": 100_000_000_000_u64,
        "metadata": state.metadata(&user),
        "commentAllowed": 255,
    });
    state.answer(Step::Terms, format!("/.well-known/lnurlp/{user}"), answer)
}

async fn invoice(
    State(state): State<Arc<Inner>>,
    uri: http::Uri,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    let amount_msat = query["amount"].parse().unwrap();
    let bolt11 = state.make(amount_msat);
    let verify = format!("http://{}/verify/{}", state.address, hash_of(&bolt11));
    let answer = json!({ "status": "OK", "routes": [], "pr": bolt11, "verify": verify });
    state.answer(Step::Invoice, uri.to_string(), answer)
}

async fn verify(State(state): State<Arc<Inner>>, Path(hash): Path<String>) -> Response {
    let answer = match state.invoices.lock().unwrap().get(&hash) {
        None => json!({ "status": "ERROR", "reason": "Not found" }),
        // Also before the payment, as some do: whoever asks must not keep it.
        Some(sold) => json!({
            "status": "OK",
            "settled": sold.is_paid,
            "preimage": sold.preimage.to_hex(),
            "pr": sold.bolt11,
        }),
    };
    state.answer(Step::Verify, format!("/verify/{hash}"), answer)
}
