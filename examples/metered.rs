//! One balance for routes of different cost, counted in a file that survives a
//! restart: `cargo run --example metered`.

use std::error::Error;
use std::path::Path;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderValue, Response};
use axum::routing::get;
use l402::{
    Access, Challenge, DAY, DevBackend, Gate, Issuer, KeyRing, L402Layer, Network, Offer, Price, Revocation,
    RootKey, SqliteLedger,
};
use tower::ServiceExt as _;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// The server as it starts: the same key and the same file each time.
async fn start(key: &RootKey, wallet: &DevBackend, file: &Path) -> Result<(Issuer, Router)> {
    let issuer = Issuer::builder(KeyRing::new(key.clone()), wallet.clone())
        .with_network(Network::Regtest)
        .with_ledger(SqliteLedger::open(file).await?)
        .build()?;

    let thousand = Offer::new(Price::sat(1_000), Access::balance(1_000).within(30 * DAY));
    let api = Gate::builder(&issuer, "api", thousand);
    let text = api.clone().with_cost(1).build()?;
    let image = api.with_cost_fn(|head| if head.uri.query() == Some("hd") { 40 } else { 25 }).build()?;
    let account = text.clone();

    let router = Router::new()
        .route("/text", get(|| async { "once upon a time" }).route_layer(L402Layer::new(text)))
        .route("/image", get(|| async { "a castle" }).route_layer(L402Layer::new(image)))
        // What a holder asks for what is left. It costs nothing.
        .route(
            "/account",
            get(async move |request: Request| {
                account.account(&mut request.into_parts().0).await.map(Body::from)
            }),
        );
    Ok((issuer, router))
}

#[tokio::main]
async fn main() -> Result<()> {
    let (key, wallet) = (RootKey::generate(), DevBackend::new());
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("uses.db");

    let (_, server) = start(&key, &wallet, &file).await?;
    let refused = ask(&server, "/text", None).await?;
    let challenge: Challenge = refused.headers()["www-authenticate"].to_str()?.parse()?;
    let preimage = wallet.pay(challenge.invoice())?;
    let credential = challenge.token().credential(&preimage);
    println!("bought 1,000 units for 1,000 sat");
    for path in ["/text", "/image", "/image?hd"] {
        show(&server, path, &credential).await?;
    }

    drop(server);
    println!("the server restarts");
    let (issuer, server) = start(&key, &wallet, &file).await?;
    show(&server, "/text", &credential).await?;
    show(&server, "/account", &credential).await?;

    println!("the operator looks up the account, and revokes the token");
    let account = issuer.account(preimage.payment_hash()).await?.ok_or("the account is known")?;
    println!("  {} of {} units left", account.limit - account.used, account.limit);
    issuer.revoke(Revocation::Token(preimage.payment_hash())).await?;
    show(&server, "/text", &credential).await
}

async fn show(server: &Router, path: &str, credential: &HeaderValue) -> Result<()> {
    let response = ask(server, path, Some(credential)).await?;
    let status = response.status();
    let left =
        response.headers().get("ratelimit").map_or("", |value| value.to_str().unwrap_or_default()).to_owned();
    let body = axum::body::to_bytes(response.into_body(), 10_000).await?;
    let text = String::from_utf8_lossy(&body);
    println!("  GET {path:<10} {status} {left} {}", text.split(r#","l402""#).next().unwrap_or_default());
    Ok(())
}

async fn ask(server: &Router, path: &str, credential: Option<&HeaderValue>) -> Result<Response<Body>> {
    let mut request = Request::get(path).body(Body::empty())?;
    if let Some(credential) = credential {
        request.headers_mut().insert("authorization", credential.clone());
    }
    Ok(server.clone().oneshot(request).await?)
}
