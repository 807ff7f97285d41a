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

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use axum::routing::get;
use axum::{Json, Router};
use l402::{Access, DAY, L402Layer};
use serde::Serialize;
use support::{Token, credential, floor, gate};

const CONNECTIONS: [usize; 2] = [1, 16];
/// Requests of one round, and rounds of each route: short and many, so that
/// whatever else the machine does falls on all routes alike.
const REQUESTS: u32 = 512;
const ROUNDS: usize = 201;

async fn hello() -> &'static str {
    "sunny"
}

/// An answer as an interface gives it: a week of hours, made for each request.
async fn document() -> Json<Vec<Hour>> {
    let hour = |at| Hour { at, celsius: f64::from(at % 24) / 2.0, rain_mm: 0.25, sky: "sunny" };
    Json((0..168).map(hour).collect())
}

#[derive(Serialize)]
struct Hour {
    at: u32,
    celsius: f64,
    rain_mm: f64,
    sky: &'static str,
}

/// A route, and how many requests it answered in each second of each round.
struct Route {
    name: &'static str,
    request: String,
    rates: Vec<f64>,
}

fn main() {
    // `cargo test --benches` asks for a trial run only.
    let rounds = if std::env::args().any(|arg| arg == "--bench") { ROUNDS } else { 1 };
    let pass = gate(Access::pass(DAY));
    let metered = gate(Access::uses(1_000_000_000_000).within(DAY));
    let (paid, uses) = (credential(&pass), credential(&metered));
    let (pass, metered) = (L402Layer::new(pass), L402Layer::new(metered));
    let floor = floor(&Token::new(&paid));

    let app = Router::new()
        .route("/ungated", get(hello))
        .route(
            "/crypto-",
            get(async move || {
                floor();
                "sunny"
            }),
        )
        .route("/pass---", get(hello).route_layer(pass.clone()))
        .route("/metered", get(hello).route_layer(metered))
        .route("/document", get(document))
        .route("/document/pass", get(document).route_layer(pass));
    let address = serve(app);

    let route = |name, path, credential: &str| {
        let request = format!(
            "GET {path} HTTP/1.1\r\nhost: {address}\r\nuser-agent: bench/1.0\r\naccept: */*\r\n\
             authorization: {credential}\r\n\r\n"
        );
        Route { name, request, rates: Vec::new() }
    };
    for connections in CONNECTIONS {
        let mut routes = [
            route("ungated", "/ungated", &paid),
            route("cryptography alone", "/crypto-", &paid),
            route("pass", "/pass---", &paid),
            route("uses", "/metered", &uses),
        ];
        measure(address, connections, rounds, &mut routes);
        let mut routes = [
            route("document, ungated", "/document", &paid),
            route("document, pass", "/document/pass", &paid),
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
    let ungated = &routes[0];
    println!("{:20} {:7.0} requests/s", ungated.name, median(ungated.rates.clone()));
    for route in &routes[1..] {
        let pairs = || route.rates.iter().zip(&ungated.rates);
        let ratio = median(pairs().map(|(gated, ungated)| gated / ungated).collect());
        let added = median(pairs().map(|(gated, ungated)| 1e6 / gated - 1e6 / ungated).collect());
        println!(
            "{:20} {:7.0} requests/s, {} / {} = {ratio:.3}, adds {added:.2} us",
            route.name,
            median(route.rates.clone()),
            route.name,
            ungated.name
        );
    }
    println!();
}

struct Client {
    connections: Vec<TcpStream>,
    buffer: Vec<u8>,
}

impl Client {
    fn new(address: SocketAddr, connections: usize) -> Self {
        let connect = |_| {
            let stream = TcpStream::connect(address).expect("the server listens");
            stream.set_nodelay(true).expect("TCP");
            stream
        };
        Self { connections: (0..connections).map(connect).collect(), buffer: vec![0; 64 * 1024] }
    }

    /// Requests per second, every connection having one under way.
    fn round(&mut self, request: &str) -> f64 {
        let start = Instant::now();
        for connection in &mut self.connections {
            connection.write_all(request.as_bytes()).expect("the server listens");
        }
        // The next request goes out as soon as the answer is there.
        let turns = REQUESTS as usize / self.connections.len();
        for turn in 1..=turns {
            for connection in &mut self.connections {
                read_response(connection, &mut self.buffer);
                if turn < turns {
                    connection.write_all(request.as_bytes()).expect("the server listens");
                }
            }
        }
        f64::from(REQUESTS) / start.elapsed().as_secs_f64()
    }
}

/// Reads one answer, whose body has a length.
fn read_response(connection: &mut TcpStream, buffer: &mut [u8]) {
    let (mut len, mut whole) = (0, None);
    while whole.is_none_or(|whole| len < whole) {
        let read = connection.read(&mut buffer[len..]).expect("the server answers");
        assert!(read > 0, "the server closed the connection");
        len += read;
        whole = whole.or_else(|| length(&buffer[..len]));
    }
    assert!(buffer.starts_with(b"HTTP/1.1 200 OK\r\n"), "{}", String::from_utf8_lossy(&buffer[..len]));
}

/// The length of an answer, once its head is there.
fn length(answer: &[u8]) -> Option<usize> {
    let head = memchr::memmem::find(answer, b"\r\n\r\n")? + 4;
    let name = b"content-length: ";
    let digits = &answer[memchr::memmem::find(&answer[..head], name).expect("a length") + name.len()..head];
    let digits = digits.iter().take_while(|byte| byte.is_ascii_digit());
    Some(head + digits.fold(0, |length, digit| length * 10 + usize::from(digit - b'0')))
}

fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}
