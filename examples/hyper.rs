//! A paid service on hyper alone, over HTTP/1.1 and HTTP/2: `cargo run --example hyper`.

use std::convert::Infallible;
use std::error::Error;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::header::{AUTHORIZATION, HeaderValue, WWW_AUTHENTICATE};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use l402::{Access, Challenge, DevBackend, Gate, Grant, HOUR, Issuer, L402Layer, Offer, Price};
use tokio::net::{TcpListener, TcpStream};
use tower::Layer as _;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

async fn forecast(request: Request<Incoming>) -> std::result::Result<Response<Full<Bytes>>, Infallible> {
    let left = request.extensions().get::<Grant>().and_then(Grant::remaining).unwrap_or_default();
    Ok(Response::new(format!("sun tomorrow; {left} requests left").into()))
}

/// A tower service behind the gate, on every connection.
async fn serve(listener: TcpListener, wallet: DevBackend) -> Result<()> {
    let offer = Offer::new(Price::sat(21), Access::uses(100).within(HOUR));
    let gate = Gate::new(&Issuer::dev(&wallet), "forecast", offer)?;
    let service = TowerToHyperService::new(L402Layer::new(gate).layer(tower::service_fn(forecast)));
    loop {
        let (stream, _) = listener.accept().await?;
        let service = service.clone();
        tokio::spawn(async move {
            let server = auto::Builder::new(TokioExecutor::new());
            if let Err(error) = server.serve_connection(TokioIo::new(stream), service).await {
                eprintln!("connection: {error}");
            }
        });
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let wallet = DevBackend::new();
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(serve(listener, wallet.clone()));

    let stream = TokioIo::new(TcpStream::connect(address).await?);
    let (mut client, connection) = http1::handshake::<_, Empty<Bytes>>(stream).await?;
    tokio::spawn(connection);
    let refused = client.send_request(request(None)?).await?;
    println!("{:?} {}", refused.version(), refused.status());
    let challenge: Challenge = refused.headers()[WWW_AUTHENTICATE].to_str()?.parse()?;
    let preimage = wallet.pay(challenge.invoice())?;
    let credential = challenge.token().credential(&preimage);
    println!("paid {}", challenge.invoice());
    client.ready().await?;
    show(client.send_request(request(Some(&credential))?).await?).await?;

    let stream = TokioIo::new(TcpStream::connect(address).await?);
    let (mut client, connection) = http2::handshake(TokioExecutor::new(), stream).await?;
    tokio::spawn(connection);
    show(client.send_request(request(Some(&credential))?).await?).await
}

fn request(credential: Option<&HeaderValue>) -> Result<Request<Empty<Bytes>>> {
    let mut request = Request::get("http://localhost/").header("host", "localhost").body(Empty::new())?;
    if let Some(credential) = credential {
        request.headers_mut().insert(AUTHORIZATION, credential.clone());
    }
    Ok(request)
}

async fn show(response: Response<Incoming>) -> Result<()> {
    let (version, status) = (response.version(), response.status());
    let body = response.into_body().collect().await?.to_bytes();
    println!("{version:?} {status}: {}", String::from_utf8_lossy(&body));
    Ok(())
}
