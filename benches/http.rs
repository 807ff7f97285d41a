//! What a gate costs an axum route, over HTTP/1.1 and keep-alive connections
//! on loopback.
//!
//! The same handler stands behind a gate and without one, in one router on one
//! server thread. One client thread keeps all connections busy, so that the
//! server is what limits. Both routes are asked in turns, over the same
//! connections and with the same headers, the credential among them; the
//! ratios are medians over pairs of neighbouring rounds.
//!
//! Written by hand, since a benchmark library does not run two things in turns.

#![allow(missing_docs)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use axum::Router;
use axum::routing::get;
use l402::{
    Access, DAY, DevBackend, Gate, Issuer, KeyRing, L402Layer, MemoryLedger, Network, Offer, Price, RootKey,
};

const CONNECTIONS: [usize; 3] = [1, 4, 32];
/// Requests of one round, and rounds of each route: short and many, so that
/// whatever else the machine does falls on all routes alike.
const REQUESTS: usize = 512;
const ROUNDS: usize = 201;

async fn forecast() -> &'static str {
    "sunny"
}

struct Route {
    name: &'static str,
    request: String,
    rates: Vec<f64>,
}

fn main() {
    // `cargo test --benches` asks for a trial run only.
    let rounds = if std::env::args().any(|arg| arg == "--bench") { ROUNDS } else { 1 };
    let keys = KeyRing::new(RootKey::new([7; 32]).expect("32 bytes"));
    let issuer = Issuer::builder(keys, DevBackend::new())
        .with_network(Network::Regtest)
        .with_ledger(MemoryLedger::new())
        .build()
        .expect("the backend's network");
    let gate = |name: &str, access| {
        Gate::new(&issuer, name, Offer::new(Price::sat(21), access)).expect("a gate of its own name")
    };
    let pass = gate("pass", Access::pass(DAY));
    let metered = gate("metered", Access::uses(1_000_000_000_000).within(DAY));

    let app = Router::new()
        .route("/free", get(forecast))
        .route("/paid", get(forecast).route_layer(L402Layer::new(pass.clone())))
        .route("/uses", get(forecast).route_layer(L402Layer::new(metered.clone())));
    let address = serve(app);

    let request = |path: &str, gate: &Gate| {
        let credential = gate.test_credential();
        let credential = credential.to_str().expect("ASCII");
        format!(
            "GET {path} HTTP/1.1\r\nhost: {address}\r\nuser-agent: bench/1.0\r\naccept: */*\r\n\
             authorization: {credential}\r\n\r\n"
        )
    };
    for connections in CONNECTIONS {
        let mut routes = [
            Route { name: "ungated", request: request("/free", &pass), rates: Vec::new() },
            Route { name: "paid pass", request: request("/paid", &pass), rates: Vec::new() },
            Route { name: "paid uses", request: request("/uses", &metered), rates: Vec::new() },
        ];
        measure(address, connections, rounds, &mut routes);
    }
}

/// Serves on a thread of its own, until the process ends.
fn serve(app: Router) -> SocketAddr {
    let (ready, address) = mpsc::channel();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
            ready.send(listener.local_addr().expect("an address")).expect("the client waits");
            axum::serve(listener, app).await.expect("the server runs");
        });
    });
    address.recv().expect("the server starts")
}

fn measure(address: SocketAddr, connections: usize, rounds: usize, routes: &mut [Route]) {
    let mut client = Client::new(address, connections);
    for round in 0..=rounds {
        for route in &mut *routes {
            let rate = client.round(&route.request);
            // The first round warms up.
            if round > 0 {
                route.rates.push(rate);
            }
        }
    }
    println!("{connections} connections, {rounds} rounds of {REQUESTS} requests in turns, medians");
    let ungated = &routes[0].rates;
    for route in &*routes {
        let ratio = median(route.rates.iter().zip(ungated).map(|(gated, ungated)| gated / ungated).collect());
        println!("{:10} {:7.0} requests/s", route.name, median(route.rates.clone()));
        if route.name != routes[0].name {
            println!("{} / ungated = {ratio:.3}", route.name);
        }
    }
    println!();
}

struct Client {
    connections: Vec<TcpStream>,
}

impl Client {
    fn new(address: SocketAddr, connections: usize) -> Self {
        let connect = |_| {
            let stream = TcpStream::connect(address).expect("the server listens");
            stream.set_nodelay(true).expect("TCP");
            stream
        };
        Self { connections: (0..connections).map(connect).collect() }
    }

    /// Requests per second, every connection having one under way.
    fn round(&mut self, request: &str) -> f64 {
        let start = Instant::now();
        for connection in &mut self.connections {
            connection.write_all(request.as_bytes()).expect("the server listens");
        }
        // The next request goes out as soon as the answer is there.
        let turns = REQUESTS / self.connections.len();
        for turn in 1..=turns {
            for connection in &mut self.connections {
                read_response(connection);
                if turn < turns {
                    connection.write_all(request.as_bytes()).expect("the server listens");
                }
            }
        }
        REQUESTS as f64 / start.elapsed().as_secs_f64()
    }
}

/// Reads one answer, which is the handler's and ends with its body.
fn read_response(connection: &mut TcpStream) {
    let mut buffer = [0; 1024];
    let mut len = 0;
    while !buffer[..len].ends_with(b"\r\n\r\nsunny") {
        let read = connection.read(&mut buffer[len..]).expect("the server answers");
        assert!(read > 0, "the server closed the connection");
        len += read;
    }
    assert!(buffer.starts_with(b"HTTP/1.1 200 OK\r\n"), "{}", String::from_utf8_lossy(&buffer[..len]));
}

fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}
