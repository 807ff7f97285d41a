//! A paid server that can be watched: metrics for Prometheus under `/metrics`, a
//! log on standard error, and customers who keep it busy:
//! `cargo run --example observability --features metrics,tracing`.
//!
//! `--port N` listens on another port than 3000 (0 picks a free one). The
//! dashboard for Grafana is `examples/observability/dashboard.json`.

use std::error::Error;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::get;
use l402::{Access, Challenge, DAY, DevBackend, Gate, Grant, HOUR, Issuer, L402Layer, Offer, Price};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::net::TcpListener;
use tower::ServiceExt as _;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Installs the recorder of this process. Times are counted in buckets, so that
/// Grafana can draw quantiles of several servers.
pub(crate) fn record() -> Result<PrometheusHandle> {
    let seconds = [0.0001, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0];
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &seconds)?
        .install_recorder()?;
    l402::metrics::describe();
    Ok(handle)
}

/// What Prometheus asks for. Not behind a gate, and in production not on a port
/// that clients reach: it tells what you earn.
pub(crate) fn metrics(handle: PrometheusHandle) -> Router {
    Router::new().route("/metrics", get(async move || handle.render()))
}

fn app(wallet: &DevBackend) -> Result<Router> {
    let issuer = Issuer::dev(wallet);
    let ten = Offer::new(Price::sat(21), Access::uses(10).within(DAY));
    let forecast_gate = L402Layer::new(Gate::new(&issuer, "forecast", ten)?);
    // Free as it ever was, while its owner looks at what a gate would refuse.
    let pass = Offer::new(Price::sat(5), Access::pass(HOUR));
    let archive_gate = Gate::builder(&issuer, "archive", pass).dangerous_dry_run().build()?;
    Ok(Router::new()
        .route("/forecast", get(forecast).route_layer(forecast_gate))
        .route("/archive", get(async || "rain, all of it\n").route_layer(L402Layer::new(archive_gate))))
}

/// Fails now and then, which costs its caller nothing.
async fn forecast(grant: Grant) -> (StatusCode, &'static str) {
    match grant.remaining() {
        Some(4) => (StatusCode::INTERNAL_SERVER_ERROR, "it is too foggy\n"),
        _ => (StatusCode::OK, "sun tomorrow\n"),
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    tracing_subscriber::fmt().with_max_level(tracing::Level::INFO).with_writer(std::io::stderr).init();
    let port = match std::env::args().skip(1).collect::<Vec<_>>().as_slice() {
        [] => 3000,
        [flag, port] if flag == "--port" => port.parse()?,
        _ => return Err("there is --port N and nothing else".into()),
    };
    let handle = record()?;
    let wallet = DevBackend::new();
    let app = app(&wallet)?;

    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    println!("metrics on http://{}/metrics; Ctrl-C ends it", listener.local_addr()?);
    tokio::spawn(upkeep(handle.clone()));
    let customers = tokio::spawn({
        let app = app.clone();
        async move {
            if let Err(error) = shop(&app, &wallet).await {
                eprintln!("the customers went home: {error}");
            }
        }
    });
    let ended = async { drop(tokio::signal::ctrl_c().await) };
    axum::serve(listener, app.merge(metrics(handle))).with_graceful_shutdown(ended).await?;
    customers.abort();
    Ok(())
}

/// The recorder keeps every time that it was given until this is called.
async fn upkeep(handle: PrometheusHandle) {
    loop {
        tokio::time::sleep(Duration::from_secs(5)).await;
        handle.run_upkeep();
    }
}

/// Buys ten forecasts and asks for more, again and again.
async fn shop(app: &Router, wallet: &DevBackend) -> std::result::Result<(), String> {
    loop {
        let refused = ask(app, "/forecast", "").await?;
        let header = refused.headers().get("www-authenticate").and_then(|value| value.to_str().ok());
        let challenge: Challenge =
            header.and_then(|value| value.parse().ok()).ok_or("the answer is no challenge")?;
        let preimage = wallet.pay(challenge.invoice()).map_err(|error| error.to_string())?;
        let credential = format!("L402 {}:{}", challenge.token().to_base64(), preimage.to_hex());
        for _ in 0..12 {
            ask(app, "/forecast", &credential).await?;
            ask(app, "/forecast", "L402 x:y").await?;
            ask(app, "/archive", "").await?;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

async fn ask(app: &Router, path: &str, credential: &str) -> std::result::Result<Response, String> {
    let request = Request::get(path).header("authorization", credential).body(Body::empty());
    let request = request.map_err(|error| error.to_string())?;
    app.clone().oneshot(request).await.map_err(|never| match never {})
}
