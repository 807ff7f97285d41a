//! A server that sells three offers by Lightning and by two gateways, which stand
//! beside it on loopback; and a buyer.
#![allow(dead_code, unreachable_pub)] // each test binary uses a part

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::routing::{get, post};
use http::{HeaderMap, StatusCode};
use l402::checkout::{Checkout, CheckoutConfig, GatewayRequest, SignedWebhook, WebhookSecret};
use l402::{
    Access, Clock, Currency, DAY, DevBackend, ExchangeRate, FixedClock, Gate, GateBuilder, Grant, Issuer,
    IssuerBuilder, KeyRing, L402Layer, Ledger, MINUTE, Network, Offer, Price, RootKey, SystemClock,
};
use serde_json::{Value, json};

use super::wire::{Answer, NOW, ROOT, Server, serve};

pub const BASE: &str = "https://api.example.com/l402";
/// What server and gateways share.
pub const SECRET: [u8; 32] = [0x5e; 32];

pub fn secret() -> WebhookSecret {
    WebhookSecret::new(SECRET).unwrap()
}

pub fn at(unix: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(unix)
}

/// What a gateway answers.
pub type Reply = Arc<dyn Fn(&GatewayRequest) -> (StatusCode, Value) + Send + Sync>;

#[derive(Clone)]
struct Desk {
    asks: Arc<Mutex<Vec<GatewayRequest>>>,
    reply: Reply,
}

/// A gateway: it takes what is signed, and remembers what it was asked.
pub struct Gateway {
    asks: Arc<Mutex<Vec<GatewayRequest>>>,
    server: Server,
}

impl Gateway {
    pub async fn start(reply: Reply) -> Self {
        let asks = Arc::<Mutex<Vec<GatewayRequest>>>::default();
        let desk = Desk { asks: asks.clone(), reply };
        let server = serve(Router::new().route("/checkouts", post(make)).with_state(desk)).await;
        Self { asks, server }
    }

    pub async fn with_page() -> Self {
        Self::start(Arc::new(|ask| {
            let url = format!("https://pay.example.com/{}", &ask.idempotency_key[..8]);
            (StatusCode::OK, json!({ "checkout_url": url, "expires_at": ask.expires_at }))
        }))
        .await
    }

    pub async fn with_address() -> Self {
        Self::start(Arc::new(|ask| {
            let asset = ask.asset.clone().unwrap_or("btc".into());
            let chain = ask.chain.clone().unwrap_or("bitcoin".into());
            (StatusCode::OK, json!({ "address": "bcrt1qexample", "asset": asset, "chain": chain }))
        }))
        .await
    }

    pub fn url(&self) -> String {
        format!("http://{}/checkouts", self.server.address)
    }

    pub fn asks(&self) -> Vec<GatewayRequest> {
        self.asks.lock().unwrap().clone()
    }

    /// What it was asked last.
    pub fn last(&self) -> GatewayRequest {
        self.asks.lock().unwrap().last().expect("the gateway was asked").clone()
    }
}

async fn make(State(desk): State<Desk>, headers: HeaderMap, body: Bytes) -> (StatusCode, String) {
    secret().verify(&headers, &body, SystemClock.now()).expect("the server signs what it asks");
    let ask: GatewayRequest = serde_json::from_slice(&body).unwrap();
    let (status, answer) = (desk.reply)(&ask);
    desk.asks.lock().unwrap().push(ask);
    (status, answer.to_string())
}

pub struct Market {
    pub clock: FixedClock,
    pub wallet: DevBackend,
    pub issuer: Issuer,
    pub gate: Gate,
    pub checkout: Checkout,
    pub card: Gateway,
    pub onchain: Gateway,
    pub server: Server,
}

pub fn once() -> Offer {
    Offer::new(Price::minor(100, Currency::new("USD")), Access::once())
        .with_id("once")
        .with_title("One-time Access")
        .with_description("Access to the resource for a single session")
}

pub fn month() -> Offer {
    Offer::new(Price::minor(1500, Currency::new("EUR")), Access::pass(30 * DAY))
        .with_id("month")
        .with_title("Monthly Subscription")
}

pub fn credits() -> Offer {
    Offer::new(Price::msat(5_000_001), Access::uses(1000)).with_id("credits").with_title("1,000 credits")
}

impl Market {
    pub async fn new(ledger: impl Ledger + 'static) -> Self {
        Self::with(ledger, |config| config, |issuer| issuer, |gate| gate).await
    }

    pub async fn with(
        ledger: impl Ledger + 'static,
        config: impl FnOnce(CheckoutConfig) -> CheckoutConfig,
        issuer: impl FnOnce(IssuerBuilder) -> IssuerBuilder,
        gate: impl FnOnce(GateBuilder) -> GateBuilder,
    ) -> Self {
        let (card, onchain) = (Gateway::with_page().await, Gateway::with_address().await);
        let by_card = SignedWebhook::new("credit_card", "Credit Card", &card.url(), secret()).unwrap();
        let by_chain = SignedWebhook::new("onchain", "On-chain", &onchain.url(), secret()).unwrap();
        let config = config(
            CheckoutConfig::new(BASE)
                .with_terms_url("https://example.com/terms")
                .add_method(by_card)
                .add_method(by_chain.with_bitcoin()),
        );
        let clock = FixedClock::at(NOW);
        let wallet = DevBackend::with_clock(clock.clone());
        let builder = Issuer::builder(KeyRing::new(RootKey::new(ROOT).unwrap()), wallet.clone())
            .with_network(Network::Regtest)
            .with_clock(clock.clone())
            .with_server_challenges(u64::MAX, MINUTE)
            .with_rates(10 * MINUTE, |_: Currency| async { Ok(ExchangeRate::per_bitcoin(10_000_000)?) })
            .with_ledger(ledger)
            .with_checkout(config);
        let issuer = issuer(builder).build().unwrap();
        let builder = Gate::builder(&issuer, "forecast", once()).add_offer(month()).add_offer(credits());
        let gate = gate(builder).build().unwrap();
        let checkout = issuer.checkout().unwrap();
        let app = Router::new()
            .route("/forecast", get(forecast).route_layer(L402Layer::new(gate.clone())))
            .nest("/l402", checkout.router());
        let server = serve(app).await;
        Self { clock, wallet, issuer, gate, checkout, card, onchain, server }
    }

    /// A 402 without a credential.
    pub async fn refused(&self) -> Answer {
        self.refused_with(&[]).await
    }

    pub async fn refused_with(&self, lines: &[&str]) -> Answer {
        let answer = self.server.get("/forecast", lines).await;
        assert_eq!(answer.status, 402, "{}", answer.text());
        answer
    }

    /// A fresh context.
    pub async fn context(&self) -> String {
        text(&self.refused().await.json()["payment_context_token"])
    }

    pub async fn post(&self, path: &str, lines: &[&str], body: &[u8]) -> Answer {
        let length = format!("Content-Length: {}", body.len());
        let lines: Vec<_> =
            lines.iter().copied().chain([&*length, "Content-Type: application/json"]).collect();
        self.server.send_body(&format!("POST {path}"), &lines, body).await
    }

    /// A payment request.
    pub async fn ask(&self, body: &Value) -> Answer {
        self.post("/l402/payment-request", &[], body.to_string().as_bytes()).await
    }

    /// Chooses an offer and a method from a fresh 402.
    pub async fn choose(&self, offer: &str, method: &str) -> Value {
        let body = json!({"offer_id": offer, "payment_method": method, "payment_context_token": self.context().await});
        let answer = self.ask(&body).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    }

    /// A webhook of a gateway, signed now.
    pub async fn tell(&self, method: &str, body: &Value) -> Answer {
        let body = body.to_string();
        let signature = secret().sign(body.as_bytes(), self.clock.now());
        let line = format!("L402-Signature: {}", signature.to_str().unwrap());
        self.post(&format!("/l402/webhooks/{method}"), &[&line], body.as_bytes()).await
    }

    /// What the gateway tells when the last checkout was paid in full.
    pub fn settled(ask: &GatewayRequest, payment: &str) -> Value {
        json!({"payment": payment, "order": ask.order, "state": "settled",
               "amount": ask.amount, "currency": ask.currency})
    }

    /// Status and body of a request with this Authorization.
    pub async fn get(&self, authorization: &str) -> (u16, String) {
        let line = format!("Authorization: {authorization}");
        let answer = self.server.get("/forecast", &[&line]).await;
        let said = if answer.status == 200 { answer.text().to_owned() } else { answer.code() };
        (answer.status, said)
    }

    /// Whether the status URL of an answer says that it is paid.
    pub async fn is_paid(&self, answer: &Value) -> bool {
        let url = text(&answer["status_url"]);
        let path = url.strip_prefix("https://api.example.com").unwrap();
        let answer = self.server.get(path, &[]).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()["paid"].as_bool().unwrap()
    }
}

pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("a text: {value}")).to_owned()
}

async fn forecast(grant: Grant) -> String {
    format!("{} {:?}", grant.basis().code(), grant.remaining())
}
