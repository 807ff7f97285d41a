//! Handlers that gate themselves, without a layer before them, and a layer
//! above that settles for all: `cargo run --example extractor`.

use std::error::Error;

use axum::Router;
use axum::body::Body;
use axum::extract::{FromRef, Path, Request};
use axum::http::{HeaderValue, Response, StatusCode};
use axum::routing::get;
use l402::{Access, Challenge, DAY, DevBackend, Gate, Issuer, Offer, Paid, Price, SettleLayer};
use tower::ServiceExt as _;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// A part of the state that holds a gate. A second gate would be a second type.
#[derive(Clone)]
struct Forecast(Gate);

impl AsRef<Gate> for Forecast {
    fn as_ref(&self) -> &Gate {
        &self.0
    }
}

#[derive(Clone, FromRef)]
struct App {
    forecast: Forecast,
}

/// `Path` comes first: a request that names no day is rejected, and costs nothing.
async fn forecast(Path(day): Path<u32>, paid: Paid<Forecast>) -> std::result::Result<String, StatusCode> {
    match day {
        0..=9 => Ok(format!("sunny; {:?} left", paid.grant().remaining())),
        10..=99 => Err(StatusCode::NOT_FOUND),
        _ => Err(StatusCode::SERVICE_UNAVAILABLE), // the layer gives the use back
    }
}

fn app(wallet: &DevBackend) -> Result<Router> {
    let issuer = Issuer::dev(wallet);
    let hundred = Offer::new(Price::sat(21), Access::uses(100).within(DAY));
    let forecast_gate = Forecast(Gate::new(&issuer, "forecast", hundred)?);
    Ok(Router::new()
        .route("/forecast/{day}", get(forecast))
        .layer(SettleLayer::new())
        .with_state(App { forecast: forecast_gate }))
}

#[tokio::main]
async fn main() -> Result<()> {
    let wallet = DevBackend::new();
    let server = app(&wallet)?;
    let refused = ask(&server, "/forecast/1", None).await?;
    let challenge: Challenge = refused.headers()["www-authenticate"].to_str()?.parse()?;
    let credential = challenge.token().credential(&wallet.pay(challenge.invoice())?);
    for path in ["/forecast/1", "/forecast/never", "/forecast/50", "/forecast/100", "/forecast/2"] {
        ask(&server, path, Some(&credential)).await?;
    }
    Ok(())
}

async fn ask(server: &Router, path: &str, credential: Option<&HeaderValue>) -> Result<Response<Body>> {
    let mut request = Request::get(path).body(Body::empty())?;
    if let Some(credential) = credential {
        request.headers_mut().insert("authorization", credential.clone());
    }
    let response = server.clone().oneshot(request).await?;
    let left = response
        .headers()
        .get("ratelimit")
        .map_or("nothing taken", |value| value.to_str().unwrap_or_default());
    println!("GET {path:<16} {:<27} {left}", response.status().to_string());
    Ok(response)
}
