//! What a flood of unpaid requests does to the node, to the memory of the
//! server and to those who paid; what a pool of invoices saves; and what a
//! thousand gates cost.
//!
//! An axum server on one thread, behind HTTP/1.1 and keep-alive connections on
//! loopback. 64 connections flood it from another thread, each with a request
//! under way and no more than one in 50 ms, as if every one waited for the
//! node; then once more as fast as they can. A paid request goes out every
//! millisecond from a third thread.
//!
//! Written by hand, since a benchmark library floods nothing.

#![allow(missing_docs)]

use std::future::pending;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::ops::AddAssign;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use axum::Router;
use axum::routing::get;
use l402::{
    Access, BackendError, Capabilities, DAY, DevBackend, Gate, Invoice, InvoiceRequest, Issuer,
    IssuerBuilder, KeyRing, L402Layer, Network, Offer, PaymentBackend, Price, RootKey,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// What the node takes for an invoice.
const LATENCY: Duration = Duration::from_millis(50);
const CONNECTIONS: u64 = 64;
/// Quiet and flood take turns, so that whatever else the machine does falls on
/// both alike.
const ROUNDS: u64 = 8;
/// What the issuer allows without configuration: so many a second, and at once.
const RATE: f64 = 100.0;
/// Invoices that a node has signed: more than it is asked for.
const SIGNED: usize = 4_000;

/// A node that counts, and takes its time or never answers. It has signed its
/// invoices before the measurement: a node does so on a machine of its own.
#[derive(Clone, Debug)]
struct Node {
    wallet: DevBackend,
    signed: Arc<Mutex<Vec<Invoice>>>,
    hangs: bool,
    asked: Arc<AtomicU64>,
}

impl Node {
    fn new(hangs: bool) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let wallet = DevBackend::new();
        let ask = InvoiceRequest::test(21_000);
        let sign = |_| runtime.block_on(wallet.create_invoice(&ask)).expect("it signs what it is asked");
        let signed = if hangs { Vec::new() } else { (0..SIGNED).map(sign).collect() };
        Self { wallet, signed: Arc::new(Mutex::new(signed)), hangs, asked: Arc::default() }
    }
}

#[async_trait]
impl PaymentBackend for Node {
    fn capabilities(&self) -> Capabilities {
        self.wallet.capabilities()
    }

    async fn create_invoice(&self, ask: &InvoiceRequest) -> Result<Invoice, BackendError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        if self.hangs {
            pending::<()>().await;
        }
        tokio::time::sleep(LATENCY).await;
        assert_eq!(ask.amount_msat, 21_000, "the price of the gates");
        Ok(self.signed.lock().expect("nobody panics").pop().expect("enough are signed"))
    }
}

fn issuer(node: &Node) -> IssuerBuilder {
    Issuer::builder(KeyRing::new(RootKey::generate()), node.clone()).with_network(Network::Regtest)
}

fn gate(issuer: &Issuer, service: &str, pool: usize) -> Gate {
    let offer = Offer::new(Price::sat(21), Access::pass(DAY));
    Gate::builder(issuer, service, offer).with_invoice_pool(pool).build().expect("a gate of its own")
}

fn main() {
    // `cargo test --benches` asks for a trial run only.
    let is_whole = std::env::args().any(|arg| arg == "--bench");
    let requests = if is_whole { 10_000 } else { 640 };
    println!("| what | figure |\n|---|---|");
    for (hangs, paced) in [(false, true), (true, true), (false, false)] {
        flood(hangs, paced, requests);
    }
    pool(if is_whole { 200 } else { 10 });
    gates(if is_whole { 4_000 } else { 100 });
}

fn row(what: &str, figure: impl std::fmt::Display) {
    println!("| {what} | {figure} |");
}

fn flood(hangs: bool, paced: bool, requests: u64) {
    let node = Node::new(hangs);
    // Who waits in vain is told so soon, that the flood may go on.
    let issuer =
        issuer(&node).with_invoice_limits(32, Duration::from_millis(200)).build().expect("its network");
    let gate = gate(&issuer, "svc", 0);
    let paid = paid_request("/", &gate);
    let address = serve(Router::new().route("/", get(hello).route_layer(L402Layer::new(gate))));
    let name = match (hangs, paced) {
        (false, true) => "a node of 50 ms",
        (true, _) => "a node that hangs",
        (false, false) => "a node of 50 ms, as fast as they can",
    };

    let (mut idle, mut flooded, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    let (start_memory, mut peak) = (memory(), 0.0_f64);
    let (mut answers, mut took) = (Answers::default(), 0.0);
    let started = Instant::now();
    for _ in 0..ROUNDS {
        let mut before = measure(address, &paid, || thread::sleep(Duration::from_millis(requests / 10)));
        let flood_started = Instant::now();
        let mut during = measure(address, &paid, || {
            let (done, over) = mpsc::channel();
            thread::scope(|scope| {
                scope.spawn(move || {
                    done.send(send_flood(address, requests / ROUNDS, paced)).expect("we wait");
                });
                answers += loop {
                    peak = peak.max(memory());
                    if let Ok(answers) = over.recv_timeout(Duration::from_millis(5)) {
                        break answers;
                    }
                };
            });
        });
        took += flood_started.elapsed().as_secs_f64();
        ratios.push(percentiles(&mut during).1 / percentiles(&mut before).1);
        idle.extend(before);
        flooded.extend(during);
    }
    let asked = node.asked.load(Ordering::Relaxed);
    let allowed = RATE + RATE * started.elapsed().as_secs_f64();

    row(&format!("{requests} unpaid requests, {name}: time"), format!("{took:.1} s"));
    row(
        "-- answered 402, 429, 503",
        format!("{}, {}, {}", answers.challenges, answers.limited, answers.unavailable),
    );
    row("-- calls of the node, allowed at most", format!("{asked}, {allowed:.0}"));
    row("-- memory over the start, at its peak", format!("{:.1} MiB", (peak - start_memory) / 1024.0));
    let (idle, flooded) = (percentiles(&mut idle), percentiles(&mut flooded));
    row("-- paid requests, idle: median, p99", format!("{:.0} us, {:.0} us", idle.0, idle.1));
    row("-- paid requests in the flood: median, p99", format!("{:.0} us, {:.0} us", flooded.0, flooded.1));
    row("-- p99 in the flood / idle, median of the rounds", format!("{:.2}", percentiles(&mut ratios).0));
    assert_eq!(answers.challenges + answers.limited + answers.unavailable, requests);
    // Plus the one that is on its way while the clock is read.
    assert!(
        f64::from(u32::try_from(asked).expect("a few thousand")) <= allowed + 1.0,
        "the node is asked for no more than is allowed"
    );
}

/// How many requests had which answer.
#[derive(Clone, Copy, Debug, Default)]
struct Answers {
    challenges: u64,
    limited: u64,
    unavailable: u64,
}

impl AddAssign for Answers {
    fn add_assign(&mut self, more: Self) {
        self.challenges += more.challenges;
        self.limited += more.limited;
        self.unavailable += more.unavailable;
    }
}

fn send_flood(address: SocketAddr, requests: u64, paced: bool) -> Answers {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let left = Arc::new(AtomicU64::new(requests));
    runtime.block_on(async {
        let tasks: Vec<_> =
            (0..CONNECTIONS).map(|i| tokio::spawn(flood_one(address, left.clone(), paced, i))).collect();
        let mut all = Answers::default();
        for task in tasks {
            all += task.await.expect("a connection of the flood");
        }
        all
    })
}

async fn flood_one(address: SocketAddr, left: Arc<AtomicU64>, paced: bool, i: u64) -> Answers {
    if paced {
        tokio::time::sleep(LATENCY * u32::try_from(i).expect("64") / 64).await;
    }
    let mut socket = tokio::net::TcpStream::connect(address).await.expect("the server listens");
    socket.set_nodelay(true).expect("TCP");
    let request = format!("GET / HTTP/1.1\r\nhost: {address}\r\n\r\n");
    let (mut answers, mut buffer) = (Answers::default(), vec![0; 16 * 1024]);
    let one = |left: u64| left.checked_sub(1);
    while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one).is_ok() {
        let next = tokio::time::Instant::now() + LATENCY;
        socket.write_all(request.as_bytes()).await.expect("the server listens");
        let mut len = 0;
        let status = loop {
            let read = socket.read(&mut buffer[len..]).await.expect("the server answers");
            assert!(read > 0, "the server closed the connection");
            len += read;
            if let Some(status) = whole(&buffer[..len]) {
                break status;
            }
        };
        match status {
            402 => answers.challenges += 1,
            429 => answers.limited += 1,
            503 => answers.unavailable += 1,
            other => panic!("{other}"),
        }
        if paced {
            tokio::time::sleep_until(next).await;
        }
    }
    answers
}

/// What paid requests take while this runs, in microseconds: one a millisecond.
fn measure(address: SocketAddr, request: &str, run: impl FnOnce()) -> Vec<f64> {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let paid = scope.spawn(|| {
            let (mut client, mut times) = (Client::new(address), Vec::new());
            while !is_over.load(Ordering::Relaxed) {
                let (status, took) = client.ask(request);
                assert_eq!(status, 200, "who paid is served");
                times.push(took);
                thread::sleep(Duration::from_millis(1));
            }
            times
        });
        run();
        is_over.store(true, Ordering::Relaxed);
        paid.join().expect("the paid requests")
    })
}

fn pool(requests: usize) {
    let node = Node::new(false);
    let issuer = issuer(&node).build().expect("its network");
    let (without, with) = (gate(&issuer, "without", 0), gate(&issuer, "with", 16));
    let app = Router::new()
        .route("/without", get(hello).route_layer(L402Layer::new(without)))
        .route("/with", get(hello).route_layer(L402Layer::new(with)));
    let address = serve(app);
    let mut client = Client::new(address);
    let mut times = |path: &str, requests: usize| {
        let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\n\r\n");
        let mut times = Vec::new();
        for _ in 0..requests {
            let (status, took) = client.ask(&request);
            assert_eq!(status, 402);
            times.push(took);
            // As many as the server sells a second, and as the pool is refilled.
            thread::sleep(Duration::from_millis(15));
        }
        percentiles(&mut times)
    };
    let without = times("/without", requests / 4);
    let with = times("/with", requests);
    row(
        "402 without a pool, node of 50 ms: median, p99",
        format!("{:.2} ms, {:.2} ms", without.0 / 1e3, without.1 / 1e3),
    );
    row("402 with a pool of 16: median, p99", format!("{:.2} ms, {:.2} ms", with.0 / 1e3, with.1 / 1e3));
    row("-- median with / the node's 50 ms", format!("{:.3}", with.0 / 50e3));
}

fn gates(requests: usize) {
    let node = Node::new(false);
    let issuer = issuer(&node).build().expect("its network");
    let one = gate(&issuer, "one", 0);
    let one_request = paid_request("/api/gate-500/items", &one);
    let app = Router::new().route("/api/gate-500/items", get(hello).route_layer(L402Layer::new(one)));
    let only = app;
    let mut app = Router::new();
    let mut request = String::new();
    for n in 0..1000 {
        let gate = gate(&issuer, &format!("gate-{n}"), 0);
        if n == 500 {
            request = paid_request("/api/gate-500/items", &gate);
        }
        app = app.route(&format!("/api/gate-{n}/items"), get(hello).route_layer(L402Layer::new(gate)));
    }
    let [one, thousand] = serve_all([only, app]);
    let (mut one, mut thousand) = ((Client::new(one), Vec::new()), (Client::new(thousand), Vec::new()));
    for _ in 0..requests {
        one.1.push(one.0.ask(&one_request).1);
        thousand.1.push(thousand.0.ask(&request).1);
    }
    let (one, thousand) = (percentiles(&mut one.1), percentiles(&mut thousand.1));
    row(
        "paid request, 1 gate and 1,000 in the router: median",
        format!("{:.1} us, {:.1} us", one.0, thousand.0),
    );
    row("-- 1,000 gates / 1 gate", format!("{:.2}", thousand.0 / one.0));
}

async fn hello() -> &'static str {
    "sunny"
}

/// Serves on a thread of its own, until the process ends.
fn serve(app: Router) -> SocketAddr {
    let [address] = serve_all([app]);
    address
}

/// Serves several on one thread.
fn serve_all<const N: usize>(apps: [Router; N]) -> [SocketAddr; N] {
    let (ready, addresses) = mpsc::channel();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        for app in apps {
            let listener =
                runtime.block_on(tokio::net::TcpListener::bind(("127.0.0.1", 0))).expect("a free port");
            ready.send(listener.local_addr().expect("an address")).expect("the client waits");
            runtime.spawn(async move { axum::serve(listener, app).await.expect("the server runs") });
        }
        runtime.block_on(pending::<()>());
    });
    std::array::from_fn(|_| addresses.recv().expect("the server starts"))
}

fn paid_request(path: &str, gate: &Gate) -> String {
    let credential = gate.test_credential();
    let credential = credential.to_str().expect("ASCII");
    format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: {credential}\r\n\r\n")
}

struct Client {
    socket: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    fn new(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).expect("the server listens");
        socket.set_nodelay(true).expect("TCP");
        Self { socket, buffer: vec![0; 16 * 1024] }
    }

    /// The status of the answer, and the microseconds it took.
    fn ask(&mut self, request: &str) -> (u16, f64) {
        let start = Instant::now();
        self.socket.write_all(request.as_bytes()).expect("the server listens");
        let mut len = 0;
        loop {
            let read = self.socket.read(&mut self.buffer[len..]).expect("the server answers");
            assert!(read > 0, "the server closed the connection");
            len += read;
            if let Some(status) = whole(&self.buffer[..len]) {
                return (status, start.elapsed().as_secs_f64() * 1e6);
            }
        }
    }
}

/// The status of an answer that is there as a whole. Its body has a length.
fn whole(answer: &[u8]) -> Option<u16> {
    let head = memchr::memmem::find(answer, b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&answer[..head]).expect("a head of ASCII");
    let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
    let length: usize = length.parse().expect("digits");
    (answer.len() >= head + length).then(|| text[9..12].parse().expect("a status"))
}

/// Median and 99th percentile.
fn percentiles(samples: &mut [f64]) -> (f64, f64) {
    samples.sort_by(f64::total_cmp);
    (samples[samples.len() / 2], samples[samples.len() * 99 / 100])
}

/// The memory of the process in KiB, client and server together (Linux).
fn memory() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok()).unwrap_or_default()
}
