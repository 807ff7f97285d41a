//! One service, three offers, two ways to pay: `cargo run --example offers`.
//!
//! One forecast, 30 days of them, or 1,000 credits, by Lightning or by card. The
//! card is a stand-in that runs beside the service, on a port of its own, and is
//! joined by the signed webhook, as a gateway on another host is.

mod buyer;
mod card;

use axum::Router;
use axum::routing::get;
use buyer::{Result, choose, print_offers, refused, send, text};
use l402::checkout::{CheckoutConfig, SignedWebhook, WebhookSecret};
use l402::{
    Access, Currency, DAY, DevBackend, Entropy as _, ExchangeRate, Gate, Grant, Issuer, KeyRing, L402Layer,
    MINUTE, MemoryLedger, Network, Offer, Price, RootKey, SystemEntropy,
};
use tokio::net::TcpListener;

const EUR: Currency = Currency::new("EUR");

/// The service at this URL, whose cards are taken at the other.
fn service(url: &str, card_url: &str, wallet: &DevBackend, secret: WebhookSecret) -> Result<Router> {
    let card = SignedWebhook::new("credit_card", "Credit Card", &format!("{card_url}/checkouts"), secret)?;
    let issuer = Issuer::builder(KeyRing::new(RootKey::generate()), wallet.clone())
        .with_network(Network::Regtest)
        .with_ledger(MemoryLedger::new())
        // Lightning sells at the same prices: 100,000 EUR for a bitcoin.
        .with_rates(10 * MINUTE, |_: Currency| async { Ok(ExchangeRate::per_bitcoin(10_000_000)?) })
        .with_checkout(CheckoutConfig::new(format!("{url}/l402")).add_method(card))
        .build()?;

    let once = Offer::new(Price::minor(10, EUR), Access::once()).with_id("once").with_title("One forecast");
    let month =
        Offer::new(Price::minor(900, EUR), Access::pass(30 * DAY)).with_id("month").with_title("30 days");
    let credits = Offer::new(Price::minor(2_000, EUR), Access::uses(1_000))
        .with_id("credits")
        .with_title("1,000 credits");
    let gate = Gate::builder(&issuer, "forecast", once).add_offer(month).add_offer(credits).build()?;

    let checkout = issuer.checkout().ok_or("it was given one")?;
    Ok(Router::new()
        .route("/forecast", get(forecast).route_layer(L402Layer::new(gate)))
        .nest("/l402", checkout.router()))
}

async fn forecast(grant: Grant) -> String {
    format!("sun tomorrow, by {}", grant.basis().code())
}

#[tokio::main]
async fn main() -> Result<()> {
    let wallet = DevBackend::new();
    let mut bytes = [0; 32];
    SystemEntropy.fill(&mut bytes);
    let secret = WebhookSecret::new(bytes)?;

    let (listener, card_listener) = (bind().await?, bind().await?);
    let (url, card_url) = (url_of(&listener)?, url_of(&card_listener)?);
    let app = service(&url, &card_url, &wallet, secret.clone())?;
    let card = card::app(&card_url, &format!("{url}/l402/webhooks/credit_card"), secret)?;
    tokio::spawn(async move { axum::serve(listener, app).await });
    tokio::spawn(async move { axum::serve(card_listener, card).await });
    buy(&format!("{url}/forecast"), &wallet).await
}

async fn buy(forecast: &str, wallet: &DevBackend) -> Result<()> {
    println!("1. Ask. The answer says what can be bought, for how many cents, and how.");
    let offered = refused(forecast).await?;
    print_offers(&offered);

    println!("\n2. One forecast, by Lightning.");
    let answer = choose(&offered, "once", "lightning").await?;
    let preimage = wallet.pay(text(&answer["payment_request"]["lightning_invoice"])?)?;
    let credential = format!("L402 {}:{}", text(&answer["token"])?, preimage.to_hex());
    for _ in 0..2 {
        send("GET", forecast, Some(&credential), "").await?.print("with token and preimage");
    }

    println!("\n3. 30 days, by card. The token is there before the payment, and worth nothing.");
    let answer = choose(&refused(forecast).await?, "month", "credit_card").await?;
    let credential = format!("L402 {}", text(&answer["token"])?);
    send("GET", forecast, Some(&credential), "").await?.print("before the payment");
    let page = text(&answer["payment_request"]["checkout_url"])?;
    send("POST", page, None, "").await?.print("at the page");
    send("GET", forecast, Some(&credential), "").await?.print("with the token alone");

    println!("\n4. 1,000 credits, by card, presented as a bearer.");
    let answer = choose(&refused(forecast).await?, "credits", "credit_card").await?;
    let page = text(&answer["payment_request"]["checkout_url"])?;
    send("POST", page, None, "").await?.print("at the page");
    let credential = format!("Bearer {}", text(&answer["bearer"])?);
    for _ in 0..2 {
        send("GET", forecast, Some(&credential), "").await?.print("with the bearer");
    }
    let status = send("GET", text(&answer["status_url"])?, None, "").await?;
    println!("   the status route says {}", status.body);
    Ok(())
}

async fn bind() -> Result<TcpListener> {
    Ok(TcpListener::bind("127.0.0.1:0").await?)
}

fn url_of(listener: &TcpListener) -> Result<String> {
    Ok(format!("http://{}", listener.local_addr()?))
}
