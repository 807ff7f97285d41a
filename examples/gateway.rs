//! A service and its checkout in two processes: `cargo run --example gateway`.
//!
//! The service admits, and the gateway sells: it has the routes of the checkout,
//! and hears the provider's webhooks. They share the root key and the ledger, here
//! a file, and nothing else; what the gateway credits, the service finds there.
//! The provider, a stand-in for cards, stands beside the gateway and calls it back
//! by the signed webhook, as `cargo run --example offers` shows in one process.

mod buyer;
mod card;

use std::env;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use axum::Router;
use axum::routing::get;
use buyer::{Result, choose, print_offers, refused, send, text};
use l402::checkout::{CheckoutConfig, SignedWebhook, WebhookSecret};
use l402::{
    Access, Currency, DAY, DevBackend, Entropy as _, ExchangeRate, Gate, Issuer, KeyRing, L402Layer, MINUTE,
    Network, Offer, Price, RootKey, SqliteLedger, SystemEntropy,
};
use tokio::net::TcpListener;

const EUR: Currency = Currency::new("EUR");

/// What the processes share. The gateway finds it in its environment.
struct Shared {
    root_key: String,
    webhook_secret: String,
    ledger: PathBuf,
}

const ROOT_KEY: &str = "L402_ROOT_KEY";
const WEBHOOK_SECRET: &str = "L402_WEBHOOK_SECRET";
const LEDGER: &str = "L402_LEDGER";

/// What both processes build alike: the same key, ledger, offers and checkout.
async fn issuer_and_gate(shared: &Shared, gateway_url: &str) -> Result<(Issuer, Gate)> {
    let secret = WebhookSecret::new(&shared.webhook_secret)?;
    let card =
        SignedWebhook::new("credit_card", "Credit Card", &format!("{gateway_url}/card/checkouts"), secret)?;
    let key = RootKey::new(hex::decode(&shared.root_key)?)?;
    let issuer = Issuer::builder(KeyRing::new(key), DevBackend::new())
        .with_network(Network::Regtest)
        .with_ledger(SqliteLedger::open(&shared.ledger).await?)
        .with_rates(10 * MINUTE, |_: Currency| async { Ok(ExchangeRate::per_bitcoin(10_000_000)?) })
        .with_checkout(CheckoutConfig::new(format!("{gateway_url}/l402")).add_method(card))
        .build()?;
    let month =
        Offer::new(Price::minor(900, EUR), Access::pass(30 * DAY)).with_id("month").with_title("30 days");
    let credits = Offer::new(Price::minor(2_000, EUR), Access::uses(1_000))
        .with_id("credits")
        .with_title("1,000 credits");
    let gate = Gate::builder(&issuer, "forecast", month).add_offer(credits).build()?;
    Ok((issuer, gate))
}

/// The gateway's process: it tells its address, and ends with the one that began it.
async fn gateway(shared: Shared) -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    // The gate is kept, though nobody passes it here: it knows the offers.
    let (issuer, _gate) = issuer_and_gate(&shared, &url).await?;
    let checkout = issuer.checkout().ok_or("it was given one")?;
    let secret = WebhookSecret::new(&shared.webhook_secret)?;
    let card = card::app(&format!("{url}/card"), &format!("{url}/l402/webhooks/credit_card"), secret)?;
    println!("{url}");
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    Ok(axum::serve(listener, Router::new().nest("/l402", checkout.router()).nest("/card", card)).await?)
}

/// The service's process, which has no route for payments at all.
async fn service(shared: &Shared, gateway_url: &str) -> Result<String> {
    let (_, gate) = issuer_and_gate(shared, gateway_url).await?;
    let app =
        Router::new().route("/forecast", get(|| async { "sun tomorrow" }).route_layer(L402Layer::new(gate)));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    tokio::spawn(async move { axum::serve(listener, app).await });
    Ok(url)
}

#[tokio::main]
async fn main() -> Result<()> {
    if let (Ok(root_key), Ok(webhook_secret), Ok(ledger)) =
        (env::var(ROOT_KEY), env::var(WEBHOOK_SECRET), env::var(LEDGER))
    {
        return gateway(Shared { root_key, webhook_secret, ledger: ledger.into() }).await;
    }
    let directory = tempfile::tempdir()?;
    let (root_key, webhook_secret) = (random_hex(), random_hex());
    let shared = Shared { root_key, webhook_secret, ledger: directory.path().join("ledger.db") };
    let (mut process, gateway_url) = start_gateway(&shared)?;
    let url = service(&shared, &gateway_url).await?;
    println!("the service is at {url}, and the gateway, another process, at {gateway_url}\n");
    buy(&format!("{url}/forecast")).await?;
    drop(process.stdin.take());
    process.wait()?;
    Ok(())
}

/// Starts this program again, as the gateway, and waits for its address.
fn start_gateway(shared: &Shared) -> Result<(Child, String)> {
    let mut process = Command::new(env::current_exe()?)
        .env(ROOT_KEY, &shared.root_key)
        .env(WEBHOOK_SECRET, &shared.webhook_secret)
        .env(LEDGER, &shared.ledger)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut url = String::new();
    BufReader::new(process.stdout.take().ok_or("it was piped")?).read_line(&mut url)?;
    Ok((process, url.trim().to_owned()))
}

fn random_hex() -> String {
    let mut bytes = [0; 32];
    SystemEntropy.fill(&mut bytes);
    hex::encode(bytes)
}

async fn buy(forecast: &str) -> Result<()> {
    println!("1. Ask the service. Its answer sends the buyer to the gateway.");
    let offered = refused(forecast).await?;
    print_offers(&offered);
    println!("   to be asked for at {}", text(&offered["payment_request_url"])?);

    println!("\n2. Choose at the gateway, and pay at the provider's page.");
    let answer = choose(&offered, "credits", "credit_card").await?;
    let page = text(&answer["payment_request"]["checkout_url"])?;
    send("POST", page, None, "").await?.print("at the page");

    println!("\n3. Ask the service again: it finds the payment in the ledger.");
    let credential = format!("L402 {}", text(&answer["token"])?);
    for _ in 0..2 {
        send("GET", forecast, Some(&credential), "").await?.print("with the token alone");
    }
    Ok(())
}
