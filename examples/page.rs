//! A paid page for people: `cargo run --example page`, then open what it prints
//! in a browser. `--port N` listens on another port than 3000.
//!
//! No money moves. Press "Copy invoice" and pay it as a wallet would:
//! `curl http://127.0.0.1:3000/dev/pay -d <invoice>`. The page opens by itself.

use std::error::Error;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Html;
use axum::routing::{get, post};
use l402::{
    Access, DAY, DevBackend, Gate, Grant, Issuer, KeyRing, L402Layer, MemoryLedger, Network, Offer, Page,
    Price, RootKey,
};
use tokio::net::TcpListener;

fn app(wallet: &DevBackend) -> Result<Router, l402::Error> {
    let issuer = Issuer::builder(KeyRing::new(RootKey::generate()), wallet.clone())
        .with_network(Network::Regtest)
        .with_ledger(MemoryLedger::new())
        // The page opens when the payment arrives, from whichever device.
        .with_settled_tokens()
        .with_page("/l402", Page::new())
        .build()?;
    let day = Offer::new(Price::sat(210), Access::pass(DAY))
        .with_title("Today's paper")
        .with_description("Every article of today, on this device.");
    let month = Offer::new(Price::sat(4_200), Access::pass(30 * DAY)).with_id("month").with_title("A month");
    let gate = Gate::builder(&issuer, "paper", day).add_offer(month).build()?;
    Ok(Router::new()
        .route("/", get(paper).route_layer(L402Layer::new(gate)))
        .merge(issuer.page_router())
        .route("/dev/pay", post(pay).with_state(wallet.clone())))
}

async fn paper(grant: Grant) -> Html<String> {
    Html(format!(
        "<!doctype html><title>The paper</title><h1>The paper</h1><p>Bought as {:?}.</p>",
        grant.offer()
    ))
}

/// Stands in for the payer's wallet: an invoice in, its preimage out.
async fn pay(State(wallet): State<DevBackend>, bolt11: String) -> Result<String, (StatusCode, String)> {
    match wallet.pay(bolt11.trim().trim_start_matches("lightning:")) {
        Ok(preimage) => Ok(preimage.to_hex()),
        Err(error) => Err((StatusCode::UNPROCESSABLE_ENTITY, format!("{error}\n"))),
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let port = match (arguments.next().as_deref(), arguments.next()) {
        (None, _) => 3000,
        (Some("--port"), Some(port)) => port.parse()?,
        _ => return Err("there is --port N".into()),
    };
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    println!("listening on http://{}", listener.local_addr()?);
    let ended = async { drop(tokio::signal::ctrl_c().await) };
    axum::serve(listener, app(&DevBackend::new())?).with_graceful_shutdown(ended).await?;
    Ok(())
}
