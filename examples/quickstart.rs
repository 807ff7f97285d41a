//! A paid server and a paying client in one terminal: `cargo run --example quickstart`.
//!
//! `--port N` listens on another port than 3000 (0 picks a free one), `--serve`
//! skips the demonstration.

use std::error::Error;
use std::io;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use l402::macaroon::Macaroon;
use l402::{Access, Challenge, DAY, DevBackend, Gate, Grant, Issuer, L402Layer, MINUTE, Offer, Price};
use lightning_invoice::Bolt11Invoice;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// The server: two gates of one issuer, and a wallet to pay them with.
fn app(wallet: DevBackend) -> Result<Router> {
    let issuer = Issuer::dev(&wallet);
    let hundred = Offer::new(Price::sat(21), Access::uses(100).within(DAY)).with_title("100 forecasts");
    let minute = Offer::new(Price::sat(1), Access::pass(MINUTE)).with_title("a minute of now");
    let forecast_gate = L402Layer::new(Gate::new(&issuer, "forecast", hundred)?);
    let now_gate = L402Layer::new(Gate::new(&issuer, "now", minute)?);

    Ok(Router::new()
        .route(
            "/",
            get(|| async { "GET /forecast: 21 sat for 100 requests. GET /now: 1 sat for a minute.\n" }),
        )
        .route("/forecast", get(forecast).post(forecast).route_layer(forecast_gate))
        .route("/now", get(|| async { "it rains\n" }).route_layer(now_gate))
        .route("/dev/pay", post(pay).with_state(wallet)))
}

async fn forecast(grant: Grant) -> String {
    format!("sun tomorrow; {} requests left\n", grant.remaining().unwrap_or_default())
}

/// Stands in for the payer's wallet: an invoice in, its preimage out.
async fn pay(
    State(wallet): State<DevBackend>,
    bolt11: String,
) -> std::result::Result<Json<serde_json::Value>, (StatusCode, String)> {
    let preimage =
        wallet.pay(&bolt11).map_err(|error| (StatusCode::UNPROCESSABLE_ENTITY, format!("{error}\n")))?;
    Ok(Json(serde_json::json!({ "preimage": preimage.to_hex() })))
}

#[tokio::main]
async fn main() -> Result<()> {
    let (port, serve_only) = arguments()?;
    let listener = TcpListener::bind(("127.0.0.1", port)).await.map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => format!("port {port} is taken; try `--port 0`"),
        _ => format!("cannot listen on port {port}: {error}"),
    })?;
    let address = listener.local_addr()?;
    println!("listening on http://{address}");
    let app = app(DevBackend::new())?;
    let ended = async { drop(tokio::signal::ctrl_c().await) };
    let server = tokio::spawn(async move { axum::serve(listener, app).with_graceful_shutdown(ended).await });
    if !serve_only {
        demonstrate(&address.to_string()).await?;
        print_curl(&address.to_string());
    }
    Ok(server.await??)
}

fn arguments() -> Result<(u16, bool)> {
    let (mut port, mut serve_only) = (3000, false);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--port" => {
                let number = arguments.next().and_then(|n| n.parse().ok());
                port = number.ok_or("--port takes a number up to 65535")?;
            }
            "--serve" => serve_only = true,
            _ => return Err(format!("unknown argument `{argument}`; there are --port N and --serve").into()),
        }
    }
    Ok((port, serve_only))
}

/// The client: what goes over the wire, step by step.
async fn demonstrate(address: &str) -> Result<()> {
    println!("\n1. Ask without a token.");
    let answer = send(address, "GET /forecast", "", "", true).await?;
    let header =
        answer.lines().find_map(|line| line.strip_prefix("www-authenticate: ")).ok_or("no challenge")?;
    let challenge: Challenge = header.parse()?;
    let invoice: Bolt11Invoice = challenge.invoice().parse().map_err(|_| "no BOLT 11 invoice")?;
    println!("   The invoice, decoded:");
    println!("     amount        {} msat", invoice.amount_milli_satoshis().unwrap_or_default());
    println!("     payment hash  {}", invoice.payment_hash());
    println!("     expires in    {} s", invoice.expiry_time().as_secs());
    println!("   The token, decoded:");
    for caveat in challenge.token().caveats() {
        println!("     {}", String::from_utf8_lossy(caveat));
    }

    println!("\n2. Pay the invoice. The payment reveals its preimage.");
    let paid = send(address, "POST /dev/pay", "", challenge.invoice(), true).await?;
    let body = paid.split("\r\n\r\n").nth(1).ok_or("no body")?;
    let paid: serde_json::Value = serde_json::from_str(body)?;
    let preimage = paid["preimage"].as_str().ok_or("no preimage")?;

    println!("\n3. Ask again, with token and preimage.");
    let credential = format!("Authorization: L402 {}:{preimage}\r\n", challenge.token().to_base64());
    send(address, "GET /forecast", &credential, "", true).await?;

    println!("\n4. Write 999 uses into the token.");
    let mut forged = challenge.token().as_bytes().to_vec();
    let uses =
        forged.windows(13).position(|bytes| bytes == b"_max_uses=100").ok_or("no count in the token")?;
    forged[uses + 10..uses + 13].copy_from_slice(b"999");
    let forged = Macaroon::decode(&forged)?.to_base64();
    send(address, "GET /forecast", &format!("Authorization: L402 {forged}:{preimage}\r\n"), "", true).await?;

    println!("\n5. Use the other 99 requests, and ask a 101st time.");
    for n in 2..=100 {
        let answer = send(address, "GET /forecast", &credential, "", false).await?;
        if !answer.starts_with("HTTP/1.1 200") {
            return Err(format!("request {n} was refused").into());
        }
    }
    send(address, "GET /forecast", &credential, "", true).await?;
    Ok(())
}

/// Sends one request and prints what matters of both sides.
async fn send(address: &str, line: &str, headers: &str, body: &str, print: bool) -> Result<String> {
    let length = body.len();
    let request = format!(
        "{line} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
    );
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    if print {
        let sent = [line, headers.trim(), body].into_iter().filter(|text| !text.is_empty());
        sent.for_each(|text| println!("   > {}", shorten(text)));
        let (head, body) = answer.split_once("\r\n\r\n").ok_or("no answer")?;
        let shown = ["http/1.1", "www-authenticate", "ratelimit", "cache-control"];
        let lines =
            head.lines().filter(|line| shown.iter().any(|name| line.to_lowercase().starts_with(name)));
        lines.chain(body.lines()).for_each(|text| println!("   < {}", shorten(text)));
    }
    Ok(answer)
}

fn shorten(text: &str) -> String {
    let words = text
        .split_inclusive(' ')
        .map(|word| if word.len() > 48 { format!("{}… ", &word[..44]) } else { word.into() });
    let line: String = words.collect();
    if line.len() > 200 { format!("{}…", line.chars().take(160).collect::<String>()) } else { line }
}

fn print_curl(address: &str) {
    println!(
        r#"
Serving on; Ctrl-C ends it. By hand:

  challenge=$(curl -si http://{address}/forecast | grep -i '^www-authenticate')
  token=$(echo "$challenge" | sed 's/.*macaroon="\([^"]*\)".*/\1/')
  invoice=$(echo "$challenge" | sed 's/.*invoice="\([^"]*\)".*/\1/')
  preimage=$(curl -s http://{address}/dev/pay -d "$invoice" | sed 's/.*"preimage":"\([^"]*\)".*/\1/')
  curl -i http://{address}/forecast -H "Authorization: L402 $token:$preimage"
"#
    );
}
