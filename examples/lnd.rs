//! A paid route on an LND node of your own. Set `LND_URL`, `LND_MACAROON_FILE`,
//! `LND_CERTIFICATE_FILE` and `LND_NETWORK`, and `L402_ROOT_KEYS` to what
//! `openssl rand -hex 32` prints; then
//! `cargo run --example lnd --features lnd`, and `curl -i localhost:3000/forecast`.

use std::error::Error;
use std::process::ExitCode;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use l402::{Access, Gate, Grant, HOUR, Issuer, KeyRing, L402Layer, LndBackend, Offer, PaymentBackend, Price};
use tokio::net::TcpListener;

async fn serve() -> Result<(), Box<dyn Error>> {
    let node = LndBackend::from_env()?;
    let keys = KeyRing::from_env("L402_ROOT_KEYS")?;
    let network = node.capabilities().network();
    let issuer = Issuer::builder(keys, node.clone()).with_network(network).build()?;
    let hour = Offer::new(Price::sat(21), Access::pass(HOUR)).with_title("An hour of forecasts");
    let gate = Gate::new(&issuer, "forecast", hour)?;

    let app = Router::new()
        .route("/forecast", get(forecast).route_layer(L402Layer::new(gate)))
        .route("/ready", get(async move || ready(&node).await));
    let listener = TcpListener::bind("127.0.0.1:3000").await?;
    println!("selling on http://{}/forecast, on {network}", listener.local_addr()?);
    Ok(axum::serve(listener, app).await?)
}

async fn forecast(grant: Grant) -> String {
    format!("sun tomorrow; paid until {:?}\n", grant.expires_at())
}

/// Whether the node can be reached and takes the macaroon, for whoever watches.
async fn ready(node: &LndBackend) -> StatusCode {
    match node.check_health().await {
        Ok(()) => StatusCode::OK,
        Err(error) => {
            explain(&error);
            StatusCode::SERVICE_UNAVAILABLE
        }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    match serve().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            explain(&*error);
            ExitCode::FAILURE
        }
    }
}

/// An error and its causes, in one line.
fn explain(error: &dyn Error) {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        line = format!("{line}: {error}");
        cause = error.source();
    }
    eprintln!("{line}");
}
