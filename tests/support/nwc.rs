//! A relay and a wallet service with Nostr Wallet Connect, in process.
//!
//! Both are fakes: the relay speaks as much of NIP-01 as NIP-47 needs, and the
//! wallet keeps its books in a `DevBackend`. Events and encryption are those of
//! the `nostr` crate, which shares no code with the backend under test.

#![allow(dead_code, unreachable_pub, missing_docs)]

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures_util::{SinkExt as _, StreamExt as _};
use http::Request;
use l402::{
    Access, BackendError, BackendErrorKind, Capabilities, DevBackend, DevPayError, Gate, HOUR, Invoice,
    InvoiceRequest, InvoiceState, Issuer, KeyRing, Network, NwcBackend, NwcConfig, Offer, PaymentBackend,
    Price, RootKey,
};
use nostr::event::{Event, EventBuilder, FinalizeEvent as _, Kind, Tag};
use nostr::key::{Keys, PublicKey};
use nostr::nips::nip44;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{broadcast, watch};
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::{WebSocketStream, accept_async, client_async};

/// What a relay sends in place of the wallet's answer: whole messages.
type Tamper = dyn Fn(&str, &Event) -> Vec<String> + Send + Sync;
/// What a wallet answers to a method in place of what is true: the plain text.
type Bend = dyn Fn(&str, Value) -> Option<String> + Send + Sync;

/// A relay on loopback, as it ought to be but for what it does to answers.
pub struct Relay {
    pub address: SocketAddr,
    books: Arc<Books>,
    task: JoinHandle<()>,
}

struct Books {
    stored: Mutex<Vec<Event>>,
    events: broadcast::Sender<Event>,
    tamper: Box<Tamper>,
    /// Every client's connection ends when it changes.
    cut: watch::Sender<()>,
    connected: AtomicUsize,
    open: watch::Sender<usize>,
}

impl Relay {
    pub async fn start() -> Self {
        Self::tampering(|id, event| vec![message(id, event)]).await
    }

    pub async fn tampering(tamper: impl Fn(&str, &Event) -> Vec<String> + Send + Sync + 'static) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").await.unwrap(), tamper)
    }

    pub fn on(
        listener: TcpListener,
        tamper: impl Fn(&str, &Event) -> Vec<String> + Send + Sync + 'static,
    ) -> Self {
        let address = listener.local_addr().unwrap();
        let books = Arc::new(Books {
            stored: Mutex::default(),
            events: broadcast::channel(1024).0,
            tamper: Box::new(tamper),
            cut: watch::channel(()).0,
            connected: AtomicUsize::new(0),
            open: watch::channel(0).0,
        });
        let served = books.clone();
        let task = tokio::spawn(async move {
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(tcp, served.clone()));
            }
        });
        Self { address, books, task }
    }

    pub fn url(&self) -> String {
        format!("ws://{}", self.address)
    }

    /// How many connections there were, wallets among them.
    pub fn connected(&self) -> usize {
        self.books.connected.load(Ordering::SeqCst)
    }

    /// Waits until so many connections are open.
    pub async fn has_open(&self, count: usize) {
        self.books.open.subscribe().wait_for(|open| *open == count).await.unwrap();
    }

    /// Ends every connection.
    pub fn cut(&self) {
        self.books.cut.send_replace(());
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
        self.cut();
    }
}

/// An event as a subscriber is sent it.
pub fn message(id: &str, event: &Event) -> String {
    json!(["EVENT", id, serde_json::from_str::<Value>(&event.as_json()).unwrap()]).to_string()
}

async fn serve(tcp: TcpStream, books: Arc<Books>) {
    let Ok(mut socket) = accept_async(tcp).await else { return };
    books.connected.fetch_add(1, Ordering::SeqCst);
    books.open.send_modify(|open| *open += 1);
    let (mut events, mut cut) = (books.events.subscribe(), books.cut.subscribe());
    let mut asked: HashMap<String, Value> = HashMap::new();
    loop {
        let out = tokio::select! {
            _ = cut.changed() => break,
            received = socket.next() => {
                let Some(Ok(received)) = received else { break };
                let Ok(text) = received.to_text() else { continue };
                let Ok(received) = serde_json::from_str::<Value>(text) else { continue };
                answer(&received, &books, &mut asked)
            }
            event = events.recv() => {
                let event = event.unwrap();
                let ids = asked.iter().filter(|(_, filter)| fits(filter, &event)).map(|(id, _)| id);
                ids.flat_map(|id| (books.tamper)(id, &event)).collect()
            }
        };
        for text in out {
            for frame in frames(text) {
                if socket.send(frame).await.is_err() {
                    break;
                }
            }
        }
    }
    books.open.send_modify(|open| *open -= 1);
}

/// One frame; or many, of a text that says so.
fn frames(text: String) -> Vec<Message> {
    if !text.starts_with("fragments") {
        return vec![Message::text(text)];
    }
    let pieces = text.as_bytes().chunks(4096).enumerate();
    let code = |index| OpCode::Data(if index == 0 { Data::Text } else { Data::Continue });
    pieces.map(|(index, piece)| Message::Frame(Frame::message(piece.to_vec(), code(index), false))).collect()
}

fn answer(received: &Value, books: &Books, asked: &mut HashMap<String, Value>) -> Vec<String> {
    let id = received[1].as_str().unwrap_or_default().to_owned();
    match received[0].as_str() {
        Some("REQ") => {
            let stored = books.stored.lock().unwrap();
            let found = stored.iter().filter(|event| fits(&received[2], event));
            let mut out: Vec<String> = found.map(|event| message(&id, event)).collect();
            out.push(json!(["EOSE", id]).to_string());
            asked.insert(id, received[2].clone());
            out
        }
        Some("CLOSE") => {
            asked.remove(&id);
            Vec::new()
        }
        Some("EVENT") => {
            let event = Event::from_json(received[1].to_string()).unwrap();
            event.verify().unwrap();
            if event.kind.as_u16() == 13194 {
                books.stored.lock().unwrap().push(event.clone());
            }
            let out = vec![json!(["OK", event.id.to_hex(), true, ""]).to_string()];
            books.events.send(event).unwrap();
            out
        }
        _ => Vec::new(),
    }
}

fn fits(filter: &Value, event: &Event) -> bool {
    let event: Value = serde_json::from_str(&event.as_json()).unwrap();
    let has = |name: &str, value: &Value| filter[name].as_array().is_none_or(|values| values.contains(value));
    let is_to =
        |value: &Value| event["tags"].as_array().unwrap().iter().any(|tag| tag[0] == "p" && tag[1] == *value);
    has("kinds", &event["kind"])
        && has("authors", &event["pubkey"])
        && filter["#p"].as_array().is_none_or(|values| values.iter().any(is_to))
        && filter["since"].as_u64().is_none_or(|since| since <= event["created_at"].as_u64().unwrap())
}

/// A wallet service on one relay, and the one connection that it has made.
pub struct Wallet {
    pub node: DevBackend,
    /// Whose invoices it can pay.
    pub payee: DevBackend,
    keys: Keys,
    client: Keys,
    relay: String,
    calls: Arc<Mutex<Vec<(Event, Value)>>>,
    task: JoinHandle<()>,
}

/// How a wallet is set up.
pub struct Setup {
    pub methods: &'static str,
    /// The `encryption` tag of its info event.
    pub encryption: Option<&'static str>,
    pub bend: Box<Bend>,
    /// What it answers is not encrypted.
    pub is_raw: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            methods: "make_invoice lookup_invoice pay_invoice get_info",
            encryption: Some("nip44_v2 nip04"),
            bend: Box::new(|_, answer| Some(answer.to_string())),
            is_raw: false,
        }
    }
}

impl Wallet {
    pub async fn start(relay: &Relay) -> Self {
        Self::with(relay, Setup::default()).await
    }

    /// A wallet that answers something else than what is true.
    pub async fn bending(
        relay: &Relay,
        bend: impl Fn(&str, Value) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        Self::with(relay, Setup { bend: Box::new(bend), ..Setup::default() }).await
    }

    pub async fn with(relay: &Relay, setup: Setup) -> Self {
        Self::of(relay, setup, Keys::generate(), Keys::generate(), DevBackend::new()).await
    }

    /// The same wallet, after a restart and with nothing bent.
    pub async fn again(&self, relay: &Relay) -> Self {
        Self::of(relay, Setup::default(), self.keys.clone(), self.client.clone(), self.node.clone()).await
    }

    async fn of(relay: &Relay, setup: Setup, keys: Keys, client: Keys, node: DevBackend) -> Self {
        let tcp = TcpStream::connect(relay.address).await.unwrap();
        let (mut socket, _) = client_async(relay.url(), tcp).await.unwrap();

        let mut info = EventBuilder::new(Kind::from(13194), setup.methods);
        if let Some(encryption) = setup.encryption {
            info = info.tag(Tag::parse(["encryption", encryption]).unwrap());
        }
        publish(&mut socket, &info.finalize(&keys).unwrap()).await;
        let filter = json!({ "kinds": [23194], "#p": [keys.public_key().to_hex()] });
        socket.send(Message::text(json!(["REQ", "requests", filter]).to_string())).await.unwrap();
        // The relay serves it from here on.
        while !socket.next().await.unwrap().unwrap().to_text().unwrap().contains("EOSE") {}

        let calls: Arc<Mutex<Vec<_>>> = Arc::default();
        let payee = DevBackend::new();
        let bank = Bank {
            keys: keys.clone(),
            node: node.clone(),
            payee: payee.clone(),
            ask: template().await,
            calls: calls.clone(),
            paid: Mutex::default(),
        };
        let task = tokio::spawn(async move {
            while let Some(Ok(received)) = socket.next().await {
                let received: Value = serde_json::from_str(received.to_text().unwrap()).unwrap();
                if received[0] != "EVENT" {
                    continue;
                }
                let request = Event::from_json(received[2].to_string()).unwrap();
                if let Some(answer) = bank.answer(&request, &setup).await {
                    publish(&mut socket, &answer).await;
                }
            }
        });
        Self { node, payee, keys, client, relay: relay.url(), calls, task }
    }

    /// The connection URI, by way of these relays too before its own.
    pub fn uri_over(&self, before: &[String]) -> String {
        let relays: Vec<String> =
            before.iter().chain([&self.relay]).map(|url| format!("relay={url}")).collect();
        let (wallet, secret) = (self.keys.public_key().to_hex(), self.secret());
        format!("nostr+walletconnect://{wallet}?{}&secret={secret}", relays.join("&"))
    }

    pub fn uri(&self) -> String {
        self.uri_over(&[])
    }

    pub fn secret(&self) -> String {
        hex::encode(self.client.secret_key().as_secret_bytes())
    }

    pub fn backend(&self) -> NwcBackend {
        NwcBackend::new(NwcConfig::new(self.uri(), Network::Regtest)).unwrap()
    }

    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// Every request so far, and what was in it.
    pub fn calls(&self) -> Vec<(Event, Value)> {
        self.calls.lock().unwrap().clone()
    }
}

impl Drop for Wallet {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn publish<S: AsyncRead + AsyncWrite + Unpin>(socket: &mut WebSocketStream<S>, event: &Event) {
    let event: Value = serde_json::from_str(&event.as_json()).unwrap();
    socket.send(Message::text(json!(["EVENT", event]).to_string())).await.unwrap();
}

/// A response to the request of this id, signed by these keys.
pub fn response(keys: &Keys, client: &PublicKey, request_id: &str, content: &str) -> Event {
    EventBuilder::new(Kind::from(23195), content)
        .tag(Tag::parse(["p", &client.to_hex()]).unwrap())
        .tag(Tag::parse(["e", request_id]).unwrap())
        .finalize(keys)
        .unwrap()
}

/// The value of a tag.
pub fn tag(event: &Event, name: &str) -> String {
    event.tags.iter().find(|tag| tag.as_slice()[0] == name).unwrap().as_slice()[1].clone()
}

struct Bank {
    keys: Keys,
    node: DevBackend,
    ask: InvoiceRequest,
    calls: Arc<Mutex<Vec<(Event, Value)>>>,
    payee: DevBackend,
    /// What it has paid itself: the preimage by the payment hash.
    paid: Mutex<HashMap<String, String>>,
}

/// What every payment of a wallet costs beside its amount, in msat.
pub const FEE_MSAT: u64 = 1_000;

impl Bank {
    async fn answer(&self, request: &Event, setup: &Setup) -> Option<Event> {
        let text = nip44::decrypt(self.keys.secret_key(), &request.pubkey, &request.content).unwrap();
        let call: Value = serde_json::from_str(&text).unwrap();
        self.calls.lock().unwrap().push((request.clone(), call.clone()));
        let method = call["method"].as_str().unwrap();
        let result = match method {
            "make_invoice" => self.make(&call["params"]).await,
            "lookup_invoice" => self.look_up(&call["params"]).await,
            "pay_invoice" => self.pay(&call["params"]),
            _ => Err("NOT_IMPLEMENTED"),
        };
        let answer = match result {
            Ok(result) => json!({ "result_type": method, "error": null, "result": result }),
            Err(code) => failure(method, code),
        };
        let text = (setup.bend)(method, answer)?;
        let (secret, client) = (self.keys.secret_key(), &request.pubkey);
        let content = if setup.is_raw {
            text
        } else {
            nip44::encrypt(secret, client, text, nip44::Version::V2).unwrap()
        };
        Some(response(&self.keys, client, &request.id.to_hex(), &content))
    }

    async fn make(&self, params: &Value) -> Result<Value, &'static str> {
        let mut ask = self.ask.clone();
        ask.amount_msat = params["amount"].as_u64().unwrap();
        ask.description = params["description"].as_str().unwrap().to_owned();
        ask.expiry = std::time::Duration::from_secs(params["expiry"].as_u64().unwrap());
        let made = self.node.create_invoice(&ask).await.map_err(|_| "INTERNAL")?;
        let bolt11 = bolt11_of(&made);
        let invoice: lightning_invoice::Bolt11Invoice = bolt11.parse().unwrap();
        let hash = invoice.payment_hash().to_string();
        let created_at = invoice.duration_since_epoch().as_secs();
        Ok(json!({
            "type": "incoming", "state": "pending", "invoice": bolt11, "payment_hash": hash,
            "amount": ask.amount_msat, "created_at": created_at,
            "expires_at": created_at + ask.expiry.as_secs(), "metadata": {},
        }))
    }

    fn pay(&self, params: &Value) -> Result<Value, &'static str> {
        let preimage = self.payee.pay(params["invoice"].as_str().unwrap()).map_err(|error| match error {
            DevPayError::AlreadyPaid => "OTHER",
            _ => "PAYMENT_FAILED",
        })?;
        self.paid.lock().unwrap().insert(preimage.payment_hash().to_string(), preimage.to_hex());
        Ok(json!({ "preimage": preimage.to_hex(), "fees_paid": FEE_MSAT }))
    }

    async fn look_up(&self, params: &Value) -> Result<Value, &'static str> {
        let hash = params["payment_hash"].as_str().unwrap();
        if let Some(preimage) = self.paid.lock().unwrap().get(hash) {
            return Ok(json!({
                "type": "outgoing", "state": "settled", "payment_hash": hash, "preimage": preimage,
                "amount": 21_000, "fees_paid": FEE_MSAT, "created_at": 1_700_000_000,
                "settled_at": 1_700_000_001,
            }));
        }
        let state = match self.node.look_up(hash.parse().unwrap(), None).await.unwrap() {
            InvoiceState::Open => "pending",
            InvoiceState::Settled => "settled",
            InvoiceState::Closed => "expired",
            InvoiceState::Unknown => return Err("NOT_FOUND"),
        };
        let settled_at = (state == "settled").then_some(1_900_000_000);
        Ok(json!({
            "type": "incoming", "state": state, "payment_hash": hash, "amount": 21_000,
            "created_at": 1_700_000_000, "settled_at": settled_at,
        }))
    }
}

pub fn failure(method: &str, code: &str) -> Value {
    json!({ "result_type": method, "error": { "code": code, "message": "the wallet's own words" }, "result": {} })
}

/// The text of an invoice, which only the crate reads.
fn bolt11_of(invoice: &Invoice) -> String {
    let text = format!("{invoice:?}");
    text.split('"').find(|part| part.starts_with("lnbcrt")).unwrap().to_owned()
}

/// What a gate asks a backend for: nobody else can make one.
async fn template() -> InvoiceRequest {
    #[derive(Debug)]
    struct Listener(Arc<Mutex<Option<InvoiceRequest>>>);

    #[async_trait]
    impl PaymentBackend for Listener {
        fn capabilities(&self) -> Capabilities {
            Capabilities::node(Network::Regtest)
        }

        async fn create_invoice(&self, ask: &InvoiceRequest) -> Result<Invoice, BackendError> {
            *self.0.lock().unwrap() = Some(ask.clone());
            Err(BackendError::new(BackendErrorKind::Backend, "heard"))
        }
    }

    let heard = Arc::new(Mutex::new(None));
    let issuer = Issuer::builder(KeyRing::new(RootKey::generate()), Listener(heard.clone()))
        .with_network(Network::Regtest)
        .build()
        .unwrap();
    let gate = Gate::new(&issuer, "any", Offer::new(Price::sat(1), Access::pass(HOUR))).unwrap();
    assert!(gate.admit(&mut Request::new(()).into_parts().0).await.is_err());
    heard.lock().unwrap().take().unwrap()
}

/// A request for an invoice of 21 sat, as a gate makes one.
pub async fn ask() -> InvoiceRequest {
    let mut ask = template().await;
    ask.amount_msat = 21_000;
    ask
}
