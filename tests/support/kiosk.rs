//! A service that sells three offers by Lightning, by Stripe's fake, and by two
//! gateways that call back: each a server of its own on loopback.
#![allow(dead_code, unreachable_pub)] // each test binary uses a part

use std::sync::{Arc, Mutex, OnceLock};
use std::time::SystemTime;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::routing::{get, post};
use http::{HeaderMap, StatusCode};
use l402::checkout::{
    CheckoutConfig, GatewayRequest, PaymentEvent, PaymentState, SignedWebhook, StripeCheckout, WebhookSecret,
    WebhookSender,
};
use l402::{
    Access, Amount, Clock, Currency, DAY, DevBackend, ExchangeRate, FixedClock, Gate, GateBuilder, Grant,
    Issuer, KeyRing, L402Layer, Ledger, MINUTE, MemoryLedger, Network, Offer, Price, RootKey, SystemClock,
};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::fake_stripe::FakeStripe;
use super::wire::{self, Answer, Server, serve, serve_on};

pub const EUR: Currency = Currency::new("EUR");

pub struct Kiosk {
    /// It stands still, at the moment of the test.
    pub clock: FixedClock,
    pub wallet: DevBackend,
    pub issuer: Issuer,
    pub stripe: FakeStripe,
    pub bank: Gateway,
    pub onchain: Gateway,
    pub server: Server,
}

/// What a request costs: one of `once`, 30 days of `month`, three of `credits`.
pub fn offers() -> [Offer; 3] {
    [
        Offer::new(Price::minor(50, EUR), Access::once()).with_id("once").with_title("One forecast"),
        Offer::new(Price::minor(900, EUR), Access::pass(30 * DAY)).with_id("month").with_title("30 days"),
        Offer::new(Price::minor(500, EUR), Access::uses(3))
            .with_id("credits")
            .with_title("Three & \"more\"")
            .with_description("to be used within 30 days"),
    ]
}

pub fn now() -> u64 {
    SystemClock.now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs()
}

impl Kiosk {
    pub async fn new(ledger: impl Ledger + 'static) -> Self {
        Self::with(ledger, |config| config, offers()).await
    }

    pub async fn with(
        ledger: impl Ledger + 'static,
        configure: impl FnOnce(CheckoutConfig) -> CheckoutConfig,
        offers: [Offer; 3],
    ) -> Self {
        Self::start(ledger, configure, offers, None).await
    }

    /// One whose cards are taken by this method.
    pub async fn by_card(method: StripeCheckout) -> Self {
        Self::start(MemoryLedger::new(), |config| config, offers(), Some(method)).await
    }

    async fn start(
        ledger: impl Ledger + 'static,
        configure: impl FnOnce(CheckoutConfig) -> CheckoutConfig,
        offers: [Offer; 3],
        by_card: Option<StripeCheckout>,
    ) -> Self {
        let now = now();
        let clock = FixedClock::at(now);
        let wallet = DevBackend::with_clock(clock.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}/l402", listener.local_addr().unwrap());

        let stripe = FakeStripe::start(now).await;
        stripe.set_endpoint(format!("{base}/webhooks/credit_card"));
        let bank = Gateway::start(&format!("{base}/webhooks/bank")).await;
        let onchain = Gateway::start(&format!("{base}/webhooks/onchain")).await;
        let by_bank = SignedWebhook::new("bank", "Bank transfer", &bank.url("/pages"), secret()).unwrap();
        let by_chain =
            SignedWebhook::new("onchain", "On-chain", &onchain.url("/addresses"), secret()).unwrap();
        let config = CheckoutConfig::new(&*base)
            .add_method(by_card.unwrap_or_else(|| stripe.method()))
            .add_method(by_bank)
            .add_method(by_chain.with_bitcoin());
        let issuer = Issuer::builder(KeyRing::new(RootKey::generate()), wallet.clone())
            .with_network(Network::Regtest)
            .with_clock(clock.clone())
            .with_server_challenges(u64::MAX, MINUTE)
            .with_rates(10 * MINUTE, |_: Currency| async { Ok(ExchangeRate::per_bitcoin(10_000_000)?) })
            .with_ledger(ledger)
            .with_checkout(configure(config))
            .build()
            .unwrap();
        let [first, others @ ..] = offers;
        let gate = others.into_iter().fold(Gate::builder(&issuer, "forecast", first), GateBuilder::add_offer);
        let app = Router::new()
            .route("/forecast", get(forecast).route_layer(L402Layer::new(gate.build().unwrap())))
            .nest("/l402", issuer.checkout().unwrap().router());
        Self { clock, wallet, issuer, stripe, bank, onchain, server: serve_on(listener, app) }
    }

    /// A 402, whose body says what can be bought.
    pub async fn refused(&self) -> Value {
        let answer = self.server.get("/forecast", &[]).await;
        assert_eq!(answer.status, 402, "{}", answer.text());
        answer.json()
    }

    /// Chooses from a 402 and asks where to pay.
    pub async fn ask(&self, refused: &Value, offer: &str, method: &str) -> Answer {
        let body = json!({
            "offer_id": offer, "payment_method": method,
            "payment_context_token": refused["payment_context_token"],
        });
        let url = refused["payment_request_url"].as_str().unwrap();
        wire::post(url, &["Content-Type: application/json"], body.to_string().as_bytes()).await
    }

    /// Asks for an offer from a fresh 402, and gives what it is answered.
    pub async fn choose(&self, offer: &str, method: &str) -> Value {
        let answer = self.ask(&self.refused().await, offer, method).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    }

    /// Status, and the code of a refusal or what the handler said.
    pub async fn get(&self, authorization: &str) -> (u16, String) {
        let answer = self.server.get("/forecast", &[&format!("Authorization: {authorization}")]).await;
        let said = if answer.status == 200 { answer.text().to_owned() } else { answer.code() };
        (answer.status, said)
    }

    /// What the status URL of an answer says.
    pub async fn is_paid(&self, answer: &Value) -> bool {
        let url = text(&answer["status_url"]);
        let path = url.strip_prefix(&format!("http://{}", self.server.address)).unwrap();
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

/// A gateway on another host, with a page and with addresses.
pub struct Gateway {
    desk: Desk,
    server: Server,
}

#[derive(Clone)]
struct Desk {
    asks: Arc<Mutex<Vec<GatewayRequest>>>,
    sender: WebhookSender,
    address: Arc<OnceLock<String>>,
}

fn secret() -> WebhookSecret {
    WebhookSecret::new([0x5e; 32]).unwrap()
}

impl Gateway {
    pub async fn start(webhook_url: &str) -> Self {
        let sender = WebhookSender::new(webhook_url, secret()).unwrap();
        let desk = Desk { asks: Arc::default(), sender, address: Arc::default() };
        let app = Router::new()
            .route("/pages", post(make_page))
            .route("/addresses", post(make_address))
            .route("/pay/{n}", post(pay))
            .with_state(desk.clone());
        let server = serve(app).await;
        desk.address.set(server.address.to_string()).unwrap();
        Self { desk, server }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.server.address)
    }

    /// A person pays at the page.
    pub async fn pay_at(&self, checkout_url: &str) {
        let answer = wire::post(checkout_url, &[], b"").await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }

    /// Money arrives at an address: seen, and later settled.
    pub async fn arrives_at(&self, address: &str) {
        self.desk.tell(number(address), PaymentState::Pending).await.unwrap();
        self.settles(address).await;
    }

    pub async fn settles(&self, address: &str) {
        let amount = self.desk.amount(number(address));
        self.desk.tell(number(address), PaymentState::Settled { amount }).await.unwrap();
    }
}

fn number(address: &str) -> usize {
    address.strip_prefix("addr").unwrap().parse().unwrap()
}

impl Desk {
    fn take(&self, headers: &HeaderMap, body: &[u8]) -> (usize, GatewayRequest) {
        secret().verify(headers, body, SystemClock.now()).expect("the server signs what it asks");
        let ask: GatewayRequest = serde_json::from_slice(body).unwrap();
        let mut asks = self.asks.lock().unwrap();
        asks.push(ask.clone());
        (asks.len() - 1, ask)
    }

    fn ask(&self, n: usize) -> GatewayRequest {
        self.asks.lock().unwrap()[n].clone()
    }

    fn amount(&self, n: usize) -> Amount {
        let GatewayRequest { amount, currency, .. } = self.ask(n);
        let Ok(Price::Amount(amount)) = Price::try_minor(amount, Currency::from_code(&currency).unwrap())
        else {
            panic!("an amount")
        };
        amount
    }

    async fn tell(&self, n: usize, state: PaymentState) -> Result<(), l402::BackendError> {
        self.sender.send(&PaymentEvent::new(format!("payment-{n}"), self.ask(n).order, state)).await
    }
}

async fn make_page(State(desk): State<Desk>, headers: HeaderMap, body: Bytes) -> String {
    let (n, ask) = desk.take(&headers, &body);
    let host = desk.address.get().unwrap();
    json!({ "checkout_url": format!("http://{host}/pay/{n}"), "expires_at": ask.expires_at }).to_string()
}

async fn make_address(State(desk): State<Desk>, headers: HeaderMap, body: Bytes) -> String {
    let (n, ask) = desk.take(&headers, &body);
    let (asset, chain) = (ask.asset.unwrap_or("usdc".into()), ask.chain.unwrap_or("base-mainnet".into()));
    json!({ "address": format!("addr{n}"), "asset": asset, "chain": chain }).to_string()
}

async fn pay(State(desk): State<Desk>, Path(n): Path<usize>) -> StatusCode {
    let told = desk.tell(n, PaymentState::Settled { amount: desk.amount(n) }).await;
    if told.is_ok() { StatusCode::OK } else { StatusCode::BAD_GATEWAY }
}
