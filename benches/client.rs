//! What the paying layer adds to a request with a held token.
//!
//! The same client asks the same gated route, with the credential put into its
//! headers beforehand, and through `L402ClientLayer`, which holds the token: once
//! hyper-util's client over a keep-alive connection on loopback, and once
//! without a socket, so that what the layer adds is seen alone. Both take turns,
//! in short rounds; the figures are medians over pairs of neighbouring rounds.
//!
//! Written by hand, since a benchmark library does not run two things in turns.

#![allow(missing_docs)]

use std::convert::Infallible;
use std::time::Instant;

use axum::Router;
use axum::routing::get;
use bytes::Bytes;
use http::{HeaderValue, Request, Response};
use http_body_util::BodyExt as _;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use l402::client::{Body, L402ClientLayer};
use l402::{Access, DAY, DevBackend, Gate, Issuer, L402Layer, Offer, Price};
use tower::{Layer as _, Service, ServiceExt as _};

/// Requests of one round, and rounds of each client.
const REQUESTS: u32 = 256;
const ROUNDS: usize = 201;

fn main() {
    // `cargo test --benches` asks for a trial run only.
    let rounds = if std::env::args().any(|arg| arg == "--bench") { ROUNDS } else { 1 };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(run(rounds));
}

async fn run(rounds: usize) {
    let wallet = DevBackend::new();
    let offer = Offer::new(Price::sat(21), Access::pass(DAY));
    let gate = Gate::new(&Issuer::dev(&wallet), "forecast", offer).expect("a first gate");
    let credential = gate.test_credential();
    let gate = L402Layer::new(gate);

    let app = Router::new().route("/forecast", get(async || "sunny").route_layer(gate.clone()));
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
    let url = format!("http://{}/forecast", listener.local_addr().expect("an address"));
    tokio::spawn(async move { axum::serve(listener, app).await.expect("the server runs") });
    let http = Client::builder(TokioExecutor::new()).build_http::<Body>();
    compare("over loopback", rounds, &wallet, &credential, &url, http).await;

    let answers = async |_: Request<Body>| Ok::<_, Infallible>(Response::new(Body::from("sunny")));
    let service = gate.layer(tower::service_fn(answers));
    compare("no socket", rounds, &wallet, &credential, "http://127.0.0.1/forecast", service).await;
}

/// Asks by this client and by the layer around it, in turns.
async fn compare<S, B>(
    name: &str,
    rounds: usize,
    wallet: &DevBackend,
    credential: &HeaderValue,
    url: &str,
    service: S,
) where
    S: Service<Request<Body>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>> + std::fmt::Debug,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: std::fmt::Debug,
{
    let (mut bare, mut paying) = (service.clone(), L402ClientLayer::new(wallet.clone()).layer(service));
    let payments = wallet.payments();
    let (mut ratios, mut added) = (Vec::new(), Vec::new());
    for round in 0..=rounds {
        let plain = round_of(&mut bare, url, Some(credential)).await;
        let paid = round_of(&mut paying, url, None).await;
        // The first round buys the token, and warms up.
        if round > 0 {
            ratios.push(plain / paid);
            added.push(paid - plain);
        }
    }
    assert_eq!(wallet.payments(), payments + 1, "the token is held");
    println!(
        "{name}: paying / bare = {:.3} of its requests/s, adds {:.2} us; medians of {rounds} rounds of {REQUESTS}",
        median(ratios),
        median(added)
    );
}

/// Microseconds a request, one after the other.
async fn round_of<S, B>(service: &mut S, url: &str, credential: Option<&HeaderValue>) -> f64
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Error: std::fmt::Debug,
    B: http_body::Body<Data = Bytes>,
    B::Error: std::fmt::Debug,
{
    let begun = Instant::now();
    for _ in 0..REQUESTS {
        let mut request = Request::get(url).header("accept", "*/*").body(Body::default()).expect("a request");
        if let Some(credential) = credential {
            request.headers_mut().insert("authorization", credential.clone());
        }
        let ready = service.ready().await.expect("the server listens");
        let response = ready.call(request).await.expect("the server answers");
        assert_eq!(response.status(), 200);
        let body = response.into_body().collect().await.expect("the server answers").to_bytes();
        assert_eq!(body, "sunny");
    }
    begun.elapsed().as_secs_f64() * 1e6 / f64::from(REQUESTS)
}

fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}
