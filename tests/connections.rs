//! Clients that leave, read slowly or close half of their connection leave no
//! task and no reservation behind: over real sockets.

#![allow(missing_docs)]

#[path = "support/node.rs"]
mod node;
#[path = "support/wire.rs"]
mod wire;

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use bytes::Bytes;
use http_body::Frame;
use l402::{
    Access, DevBackend, Gate, HOUR, Issuer, KeyRing, L402Layer, MemoryLedger, Network, Offer, PaymentHash,
    Price, RootKey,
};
use node::{Mode, Node};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use wire::{Server, read_head, serve, within};

/// Waits until it holds.
async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !holds().await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), wait).await.unwrap_or_else(|_| panic!("never: {what}"));
}

/// A body that never ends, and is always ready. Counts those that live.
struct Endless(Arc<AtomicUsize>);

impl Endless {
    fn new(alive: &Arc<AtomicUsize>) -> Self {
        alive.fetch_add(1, Ordering::SeqCst);
        Self(alive.clone())
    }
}

impl Drop for Endless {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl http_body::Body for Endless {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[b'x'; 16 * 1024])))))
    }
}

/// A server whose paid handlers never come to an end.
struct Site {
    issuer: Issuer,
    gate: Gate,
    node: Node,
    server: Server,
    /// Handlers and bodies that live.
    alive: Arc<AtomicUsize>,
    /// Tasks of the server without a connection.
    idle: usize,
}

impl Site {
    async fn new(access: Access, pool: usize) -> Self {
        let node = Node::new(DevBackend::new());
        let issuer = Issuer::builder(KeyRing::new(RootKey::generate()), node.clone())
            .with_network(Network::Regtest)
            .with_ledger(MemoryLedger::new())
            .with_invoice_limits(8, HOUR)
            .build()
            .unwrap();
        let gate = Gate::builder(&issuer, "svc", Offer::new(Price::sat(1), access)).with_invoice_pool(pool);
        let gate = gate.build().unwrap();
        let alive = Arc::new(AtomicUsize::new(0));
        let (hanging, streaming) = (alive.clone(), alive.clone());
        let app = Router::new()
            .route(
                "/hangs",
                get(async move || {
                    let _alive = Endless::new(&hanging);
                    std::future::pending::<()>().await;
                }),
            )
            .route("/streams", get(async move || Body::new(Endless::new(&streaming))))
            .route_layer(L402Layer::new(gate.clone()));
        let server = serve(app).await;
        let site = Self { issuer, gate, node, server, alive, idle: 0 };
        // One whole request, so that the server has all it keeps.
        assert_eq!(site.server.get("/hangs", &["Authorization: L402 x:y"]).await.status, 401);
        for _ in 0..1000 {
            tokio::task::yield_now().await;
        }
        Self { idle: tasks(), ..site }
    }

    /// Sends a paid request.
    async fn open(&self, path: &str) -> (TcpStream, PaymentHash) {
        let credential = self.gate.test_credential();
        let credential = credential.to_str().unwrap();
        let token = credential["L402 ".len()..].split(':').next().unwrap();
        let token = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, token).unwrap();
        let hash = l402::macaroon::Macaroon::decode(&token).unwrap().identifier().payment_hash;
        let line = format!("Authorization: {credential}");
        (self.server.open(&format!("GET {path}"), &[&line]).await, hash)
    }

    fn alive(&self) -> usize {
        self.alive.load(Ordering::SeqCst)
    }

    async fn reserved(&self) -> usize {
        self.issuer.open_reservations().await.unwrap().len()
    }

    async fn used(&self, hash: PaymentHash) -> u64 {
        self.issuer.account(hash).await.unwrap().map_or(0, |account| account.used)
    }

    async fn nothing_is_left(&self) {
        eventually("no handler", async || self.alive() == 0).await;
        eventually("no reservation", async || self.reserved().await == 0).await;
        eventually("no task", async || tasks() == self.idle).await;
    }
}

fn tasks() -> usize {
    tokio::runtime::Handle::current().metrics().num_alive_tasks()
}

#[tokio::test]
async fn a_client_that_leaves_before_the_answer_leaves_nothing_reserved() {
    for (access, used) in [(Access::uses(10), 0), (Access::once(), 1)] {
        let site = Site::new(access, 0).await;
        let mut opened = Vec::new();
        for _ in 0..20 {
            opened.push(site.open("/hangs").await);
        }
        eventually("all are served", async || site.alive() == 20).await;
        assert_eq!(site.reserved().await, 20);
        let hashes: Vec<_> = opened.into_iter().map(|(_, hash)| hash).collect();
        site.nothing_is_left().await;
        for hash in hashes {
            assert_eq!(site.used(hash).await, used);
        }
    }
}

#[tokio::test]
async fn a_client_that_closes_its_half_of_the_connection_leaves_nothing_reserved() {
    let site = Site::new(Access::uses(10), 0).await;
    let mut opened = Vec::new();
    for _ in 0..20 {
        opened.push(site.open("/hangs").await);
    }
    eventually("all are served", async || site.alive() == 20).await;
    for (socket, _) in &mut opened {
        socket.shutdown().await.unwrap();
    }
    // The server takes it for a client that left.
    site.nothing_is_left().await;
    for (mut socket, hash) in opened {
        assert_eq!(within(socket.read_to_end(&mut Vec::new())).await.unwrap(), 0);
        assert_eq!(site.used(hash).await, 0);
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_no_reservation_and_no_task_once_it_left() {
    let site = Site::new(Access::uses(10), 0).await;
    let mut opened = Vec::new();
    for _ in 0..10 {
        let (mut socket, hash) = site.open("/streams").await;
        assert_eq!(read_head(&mut socket).await.status, 200);
        opened.push((socket, hash));
    }
    // Their bodies wait for somebody to read on; the uses are charged already.
    eventually("charged", async || site.reserved().await == 0).await;
    assert_eq!(site.alive(), 10);
    let mut hashes = Vec::new();
    for (i, (mut socket, hash)) in opened.into_iter().enumerate() {
        if i % 2 == 0 {
            within(socket.read_exact(&mut vec![0; 100_000])).await.unwrap();
        }
        hashes.push(hash);
    }
    site.nothing_is_left().await;
    for hash in hashes {
        assert_eq!(site.used(hash).await, 1);
    }
}

#[tokio::test]
async fn a_client_that_leaves_while_the_node_is_asked_gives_its_place_back() {
    let site = Site::new(Access::uses(10), 0).await;
    site.node.set(Mode::Hangs);
    for round in 1..=3 {
        let mut opened = Vec::new();
        for _ in 0..8 {
            opened.push(site.server.open("GET /hangs", &[]).await);
        }
        eventually("all are asked for", async || site.node.asked() == 8 * round).await;
        assert_eq!(site.server.get("/hangs", &[]).await.code(), "busy", "all places are taken");
        drop(opened);
        site.nothing_is_left().await;
    }
    site.node.set(Mode::Good);
    assert_eq!(site.server.get("/hangs", &[]).await.status, 402);
}

#[tokio::test]
async fn half_a_request_leaves_nothing() {
    let site = Site::new(Access::uses(10), 0).await;
    let mut opened = Vec::new();
    for (i, start) in
        ["", "GET", "GET /hangs HTTP/1.1\r\nAuthorization: L402 AAA"].iter().cycle().take(21).enumerate()
    {
        let mut socket = TcpStream::connect(site.server.address).await.unwrap();
        socket.write_all(start.as_bytes()).await.unwrap();
        if i % 2 == 0 {
            socket.shutdown().await.unwrap();
        }
        opened.push(socket);
    }
    drop(opened);
    site.nothing_is_left().await;
    assert_eq!(site.node.asked(), 0);
}

#[tokio::test]
async fn clients_that_leave_have_no_more_invoices_made_than_the_pool_holds() {
    let site = Site::new(Access::uses(10), 4).await;
    site.node.set(Mode::Hangs);
    for _ in 0..5 {
        let socket = site.server.open("GET /hangs", &[]).await;
        let before = site.node.asked();
        eventually("it is asked for", async || site.node.asked() > before).await;
        drop(socket);
    }
    // What stays is what refills the pool, until the node's time is up.
    eventually("only refills", async || tasks() == site.idle + 4).await;
    assert_eq!(site.reserved().await, 0);
}
