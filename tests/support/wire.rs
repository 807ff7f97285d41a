//! A server on loopback, a client that shows the exact bytes, and a shop to
//! buy from.
#![allow(dead_code, unreachable_pub)] // each test binary uses a part

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use l402::macaroon::Macaroon;
use l402::{
    Challenge, DevBackend, FixedClock, Issuer, IssuerBuilder, KeyRing, MemoryLedger, Network, Preimage,
    RootKey,
};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// The moment at which every test begins.
pub const NOW: u64 = 1_900_000_000;
/// The root key of every test issuer.
pub const ROOT: [u8; 32] = [0x5a; 32];

/// A fixed clock, a wallet and an issuer of regtest tokens on it.
pub struct Shop {
    pub clock: FixedClock,
    pub wallet: DevBackend,
    pub issuer: Issuer,
}

impl Shop {
    pub fn new() -> Self {
        Self::with(|builder| builder)
    }

    pub fn with(configure: impl FnOnce(IssuerBuilder) -> IssuerBuilder) -> Self {
        let clock = FixedClock::at(NOW);
        let wallet = DevBackend::with_clock(clock.clone());
        let builder = Issuer::builder(KeyRing::new(RootKey::new(ROOT).unwrap()), wallet.clone())
            .with_network(Network::Regtest)
            .with_clock(clock.clone())
            // It stands still, and more is refused than a server sells at once.
            .with_server_challenges(u64::MAX, l402::MINUTE)
            .with_ledger(MemoryLedger::new());
        Self { issuer: configure(builder).build().unwrap(), clock, wallet }
    }

    /// Pays for what the answer asks.
    pub fn pay(&self, answer: &Answer) -> Paid {
        let challenge = answer.challenge();
        let preimage = self.wallet.pay(challenge.invoice()).unwrap();
        Paid { token: challenge.token().clone(), preimage }
    }
}

/// A token and the preimage that makes it valid.
#[derive(Clone)]
pub struct Paid {
    pub token: Macaroon<'static>,
    pub preimage: Preimage,
}

impl Paid {
    pub fn base64(&self) -> String {
        STANDARD.encode(self.token.as_bytes())
    }

    pub fn preimage(&self) -> String {
        self.preimage.to_hex()
    }

    /// `L402 token:preimage`.
    pub fn value(&self) -> String {
        format!("L402 {}:{}", self.base64(), self.preimage())
    }

    /// A whole Authorization line.
    pub fn line(&self) -> String {
        format!("Authorization: {}", self.value())
    }

    /// The hex of the macaroon with its `preimage=` caveat.
    pub fn hex(&self) -> String {
        hex::encode(self.attenuated(&format!("preimage={}", self.preimage())).token.as_bytes())
    }

    pub fn attenuated(&self, caveat: &str) -> Self {
        Self { token: self.token.attenuate(caveat).unwrap(), preimage: self.preimage.clone() }
    }
}

/// Serves the app on an ephemeral port of loopback until the test ends.
pub async fn serve(app: Router) -> Server {
    serve_on(TcpListener::bind("127.0.0.1:0").await.unwrap(), app)
}

/// The same on a port that the app had to know of.
pub fn serve_on(listener: TcpListener, app: Router) -> Server {
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    Server { address, task }
}

pub struct Server {
    pub address: SocketAddr,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    /// Sends a request line and header lines as they are, and nothing else.
    pub async fn send(&self, request: &str, lines: &[&str]) -> Answer {
        self.send_body(request, lines, b"").await
    }

    pub async fn send_body(&self, request: &str, lines: &[&str], body: &[u8]) -> Answer {
        send_to(self.address, request, lines, body).await
    }

    pub async fn get(&self, path: &str, lines: &[&str]) -> Answer {
        self.send(&format!("GET {path}"), lines).await
    }

    /// A connection on which the head was sent. The server closes it after the
    /// answer, unless the lines upgrade it.
    pub async fn open(&self, request: &str, lines: &[&str]) -> TcpStream {
        open(self.address, request, lines).await
    }
}

async fn open(address: SocketAddr, request: &str, lines: &[&str]) -> TcpStream {
    let mut head = format!("{request} HTTP/1.1\r\nHost: localhost\r\n");
    if !lines.iter().any(|line| line.to_ascii_lowercase().starts_with("connection:")) {
        head.push_str("Connection: close\r\n");
    }
    for line in lines {
        head.push_str(line);
        head.push_str("\r\n");
    }
    head.push_str("\r\n");
    let mut socket = TcpStream::connect(address).await.unwrap();
    socket.write_all(head.as_bytes()).await.unwrap();
    socket
}

/// Sends a request to whoever listens there, and reads the whole answer.
pub async fn send_to(address: SocketAddr, request: &str, lines: &[&str], body: &[u8]) -> Answer {
    let mut socket = open(address, request, lines).await;
    socket.write_all(body).await.unwrap();
    let mut bytes = Vec::new();
    within(socket.read_to_end(&mut bytes)).await.unwrap();
    Answer::parse(&bytes)
}

/// Posts a body to a URL of loopback.
pub async fn post(url: &str, lines: &[&str], body: &[u8]) -> Answer {
    let url = url.split('#').next().unwrap();
    let (authority, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let length = format!("Content-Length: {}", body.len());
    let lines: Vec<_> = lines.iter().copied().chain([&*length]).collect();
    send_to(authority.parse().unwrap(), &format!("POST /{path}"), &lines, body).await
}

/// Fails a test that would hang.
pub async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(30), future).await.expect("an answer within 30 seconds")
}

/// Reads up to the end of the head, and no byte further.
pub async fn read_head(socket: &mut TcpStream) -> Answer {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        bytes.push(within(socket.read_u8()).await.unwrap());
    }
    Answer::parse(&bytes)
}

/// A response as it stood on the wire.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    fn parse(bytes: &[u8]) -> Self {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("a whole head") + 4;
        let head = std::str::from_utf8(&bytes[..end]).unwrap();
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers = lines.filter_map(|line| line.split_once(':'));
        let headers =
            headers.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())).collect();
        Self { status, headers, body: bytes[end..].to_vec() }
    }

    /// Every line of this header, in order.
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(n, _)| n == name).map(|(_, value)| &**value).collect()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let all = self.all(name);
        assert!(all.len() <= 1, "{name} stands {} times", all.len());
        all.first().copied()
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub fn code(&self) -> String {
        self.json()["code"].as_str().unwrap().to_owned()
    }

    /// The challenge in the first `WWW-Authenticate` line.
    pub fn challenge(&self) -> Challenge {
        self.all("www-authenticate").first().expect("a challenge").parse().unwrap()
    }
}
