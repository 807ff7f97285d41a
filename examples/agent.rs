//! An agent with a daily budget, which buys from two services until the budget
//! ends: `cargo run --example agent`.

use std::error::Error;

use axum::Router;
use axum::routing::get;
use l402::client::{Budget, Client, ErrorKind, Limit, Payer};
use l402::{Access, DevBackend, Gate, Issuer, L402Layer, Offer, Price};
use tokio::net::TcpListener;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Two services that are sold request by request.
async fn start(wallet: &DevBackend) -> Result<String> {
    let issuer = Issuer::dev(wallet);
    let gate = |service, sat| -> Result<L402Layer> {
        Ok(L402Layer::new(Gate::new(&issuer, service, Offer::new(Price::sat(sat), Access::once()))?))
    };
    let app = Router::new()
        .route("/forecast", get(|| async { "sun tomorrow" }).route_layer(gate("forecast", 21)?))
        .route("/news", get(|| async { "nothing new" }).route_layer(gate("news", 13)?));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let origin = format!("http://{}", listener.local_addr()?);
    tokio::spawn(async move { axum::serve(listener, app).await });
    Ok(origin)
}

#[tokio::main]
async fn main() -> Result<()> {
    let wallet = DevBackend::new();
    let origin = start(&wallet).await?;

    // The agent: a wallet, and no more than 100 sat a day.
    let payer = Payer::new(wallet).with_budget(Budget::default().with_day_sat(100));
    let client = Client::new(payer.allow_origin(&origin)?);

    'day: loop {
        for path in ["/forecast", "/news"] {
            // The call that returns data, and costs 30 sat at most.
            match client.pay(format!("{origin}{path}"), 30_000).await {
                Ok(paid) => {
                    let sat = paid.receipt.map_or(0, |receipt| receipt.cost_msat() / 1_000);
                    println!("{path}: {} for {sat} sat", String::from_utf8_lossy(paid.response.body()));
                }
                Err(error) if error.kind() == ErrorKind::OverBudget(Limit::Day) => {
                    println!("{path}: not today: {error}");
                    break 'day;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    println!("\nreceipts");
    for receipt in client.payer().receipts().await? {
        println!("  {} msat for {} at {}", receipt.cost_msat(), receipt.path, receipt.paid_at);
    }
    println!("spent today: {} msat", client.payer().spent().await?.day_msat);
    Ok(())
}
