//! The quickstart with real payments: one LDK node sells through the gate, the
//! other one pays it.
//! `cargo run --manifest-path tests/lightning/Cargo.toml --example paid`

use std::error::Error;
use std::time::Instant;

use axum::Router;
use axum::routing::get;
use http::{HeaderValue, StatusCode};
use l402::client::Client;
use l402::{
    Access, DAY, Gate, Grant, Issuer, KeyRing, L402Layer, MemoryLedger, Network, Offer, Price, RootKey,
};
use l402_lightning::{Answer, LdkBackend, LdkWallet, Lightning, PayError, lightning, serve};
use ldk_node::lightning_invoice::Bolt11Invoice;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// As in the quickstart, on a node in place of the `DevBackend`.
fn app(node: LdkBackend) -> Result<Router> {
    let issuer = Issuer::builder(KeyRing::new(RootKey::generate()), node)
        .with_network(Network::Regtest)
        .with_ledger(MemoryLedger::new())
        .build()?;
    let hundred = Offer::new(Price::sat(21), Access::uses(100).within(DAY)).with_title("100 forecasts");
    let gate = L402Layer::new(Gate::new(&issuer, "forecast", hundred)?);
    Ok(Router::new().route("/forecast", get(forecast).route_layer(gate)))
}

async fn forecast(grant: Grant) -> String {
    format!("sun tomorrow; {} requests left", grant.remaining().unwrap_or_default())
}

#[tokio::main]
async fn main() -> Result<()> {
    let started = Instant::now();
    let Lightning { server, payer, .. } = lightning();
    println!("Two LDK nodes with a channel between them, ready in {} ms.", started.elapsed().as_millis());
    println!("   server  {server:?}\n   payer   {payer:?}");
    let address = serve(app(LdkBackend::new(server.ldk.clone()))?).await;
    let ask = async |credential: Option<&HeaderValue>| {
        let answer = l402_lightning::get(address, "/forecast", credential).await;
        print(credential, &answer);
        answer
    };

    println!("\n1. Ask without a token.");
    let challenge = ask(None).await.challenge();
    let invoice: Bolt11Invoice = challenge.invoice().parse().map_err(|_| "no BOLT 11 invoice")?;
    println!("   The invoice, decoded:");
    println!("     amount        {} msat", invoice.amount_milli_satoshis().unwrap_or_default());
    println!("     payee         {}", invoice.recover_payee_pub_key());
    println!("     payment hash  {}", invoice.payment_hash());
    println!("     expires in    {} s", invoice.expiry_time().as_secs());

    println!("\n2. Pay it: an HTLC from the payer's node to the server's.");
    let (before, sent) = (payer.spendable_msat(), Instant::now());
    let preimage = payer.pay(challenge.invoice()).await.map_err(|error| format!("not paid: {error:?}"))?;
    println!("   preimage      {}, after {} ms", preimage.to_hex(), sent.elapsed().as_millis());
    println!("   channel       {before} msat to spend, now {}", payer.spendable_msat());

    println!("\n3. Ask again, with token and preimage.");
    let credential = challenge.token().credential(&preimage);
    ask(Some(&credential)).await;
    ask(Some(&credential)).await;

    println!("\n4. Pay the same invoice again.");
    match payer.pay(challenge.invoice()).await {
        Err(PayError::NotSent(reason)) => println!("   The payer's node refuses: {reason}"),
        other => return Err(format!("a second payment: {other:?}").into()),
    }

    println!("\n5. Use the other 98 requests, and ask a 101st time.");
    for n in 3..=100 {
        let answer = l402_lightning::get(address, "/forecast", Some(&credential)).await;
        if answer.status != StatusCode::OK {
            return Err(format!("request {n} was refused").into());
        }
    }
    let fresh = ask(Some(&credential)).await.challenge();

    println!("\n6. Pay for a hundred more, now that node and channel have warmed up.");
    let sent = Instant::now();
    let preimage = payer.pay(fresh.invoice()).await.map_err(|error| format!("not paid: {error:?}"))?;
    println!("   paid after {} ms", sent.elapsed().as_millis());
    ask(Some(&fresh.token().credential(&preimage))).await;

    println!("\n7. Leave all of that to the paying client: 30 sat at most.");
    let client = Client::new(LdkWallet::new(payer.ldk.clone()));
    for _ in 0..2 {
        let paid = client.pay(format!("http://{address}/forecast"), 30_000).await?;
        println!("   < {} {}", paid.response.status(), String::from_utf8_lossy(paid.response.body()));
        println!("   paid {} msat", paid.receipt.map_or(0, |receipt| receipt.cost_msat()));
    }

    println!("\nThe payments are real Lightning HTLCs between two LDK nodes over loopback;");
    println!("the chain underneath is a fixture.");
    Ok(())
}

/// What goes over the wire, as far as it matters.
fn print(credential: Option<&HeaderValue>, answer: &Answer) {
    println!("   > GET /forecast");
    if let Some(value) = credential.and_then(|value| value.to_str().ok()) {
        println!("   > authorization: {}", shorten(value));
    }
    println!("   < HTTP/1.1 {}", answer.status);
    for name in ["www-authenticate", "ratelimit"] {
        if let Some(value) = answer.headers.get(name).and_then(|value| value.to_str().ok()) {
            println!("   < {name}: {}", shorten(value));
        }
    }
    let body: String = answer.body.chars().take(120).collect();
    println!("   < {body}{}", if body.len() < answer.body.len() { "…" } else { "" });
}

fn shorten(text: &str) -> String {
    let words = text.split(' ').map(|word| match word.get(..44) {
        Some(beginning) if word.len() > 48 => format!("{beginning}…"),
        _ => word.to_owned(),
    });
    words.collect::<Vec<_>>().join(" ")
}
