//! A client of HTTP/1.1 and HTTP/2 over loopback, and what every gated server
//! has to do over both.

#![allow(dead_code, unreachable_pub, missing_docs)]

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderValue, Request, Response, Version};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use l402::{Challenge, DevBackend, PaymentHash, Preimage};
use serde_json::Value;
use tokio::net::TcpStream;

#[derive(Clone, Copy, Debug)]
pub enum Http {
    One,
    Two,
}

pub const BOTH: [Http; 2] = [Http::One, Http::Two];

/// Sends a request on a connection of its own. The target is a path.
pub async fn exchange(address: SocketAddr, http: Http, mut request: Request<Full<Bytes>>) -> Response<Bytes> {
    let answered = async {
        let stream = TokioIo::new(TcpStream::connect(address).await.unwrap());
        let response = match http {
            Http::One => {
                request.headers_mut().insert("host", HeaderValue::from_static("localhost"));
                let (mut sender, connection) = http1::handshake(stream).await.unwrap();
                tokio::spawn(connection);
                sender.send_request(request).await.unwrap()
            }
            Http::Two => {
                *request.uri_mut() = format!("http://localhost{}", request.uri()).parse().unwrap();
                let (mut sender, connection) = http2::handshake(TokioExecutor::new(), stream).await.unwrap();
                tokio::spawn(connection);
                sender.send_request(request).await.unwrap()
            }
        };
        let version = match http {
            Http::One => Version::HTTP_11,
            Http::Two => Version::HTTP_2,
        };
        assert_eq!(response.version(), version);
        let (head, body) = response.into_parts();
        Response::from_parts(head, body.collect().await.unwrap().to_bytes())
    };
    tokio::time::timeout(Duration::from_secs(30), answered).await.expect("an answer within 30 seconds")
}

async fn get(
    address: SocketAddr,
    http: Http,
    path: &str,
    credential: Option<&HeaderValue>,
) -> Response<Bytes> {
    let mut request = Request::get(path).body(Full::default()).unwrap();
    if let Some(credential) = credential {
        request.headers_mut().insert(AUTHORIZATION, credential.clone());
    }
    exchange(address, http, request).await
}

fn bought(wallet: &DevBackend, refused: &Response<Bytes>) -> (HeaderValue, Preimage) {
    let challenge: Challenge = refused.headers()["www-authenticate"].to_str().unwrap().parse().unwrap();
    let preimage = wallet.pay(challenge.invoice()).unwrap();
    (challenge.token().credential(&preimage), preimage)
}

fn code(refused: &Response<Bytes>) -> (u16, String) {
    assert_eq!(refused.headers()["content-type"], "application/problem+json");
    assert_eq!(refused.headers()["cache-control"], "no-store");
    let body: Value = serde_json::from_slice(refused.body()).unwrap();
    (refused.status().as_u16(), body["code"].as_str().unwrap().to_owned())
}

/// Unpaid, paid, refused and metered requests over one version of HTTP, to a
/// server that sells three uses of `/paid`, which answers what is left, and
/// fails `/broken` with a 500. Gives the account, with its three uses spent.
pub async fn is_gated(address: SocketAddr, http: Http, wallet: &DevBackend) -> PaymentHash {
    let refused = get(address, http, "/paid", None).await;
    assert_eq!(code(&refused), (402, "missing_credential".into()));
    let (credential, preimage) = bought(wallet, &refused);

    let (_, preimage_of_another) = bought(wallet, &get(address, http, "/paid", None).await);
    let text = credential.to_str().unwrap().replace(&preimage.to_hex(), &preimage_of_another.to_hex());
    let forged = HeaderValue::try_from(text).unwrap();
    let refused = get(address, http, "/paid", Some(&forged)).await;
    assert_eq!(code(&refused), (401, "wrong_preimage".into()));
    assert_eq!(refused.headers()["www-authenticate"], "L402");

    for left in [2, 1] {
        let answer = get(address, http, "/paid", Some(&credential)).await;
        assert_eq!((answer.status().as_u16(), &**answer.body()), (200, format!("{left} left").as_bytes()));
        let said = answer.headers()["ratelimit"].to_str().unwrap();
        assert!(said.contains(&format!(";r={left};")), "{said}");
        assert_eq!(answer.headers()["cache-control"], "private");
    }
    let failed = get(address, http, "/broken", Some(&credential)).await;
    assert_eq!(failed.status(), 500, "and its use is given back");
    let answer = get(address, http, "/paid", Some(&credential)).await;
    assert_eq!((answer.status().as_u16(), &**answer.body()), (200, &b"0 left"[..]));
    for path in ["/paid", "/broken"] {
        let refused = get(address, http, path, Some(&credential)).await;
        assert_eq!(code(&refused), (402, "used_up".into()));
        bought(wallet, &refused);
    }
    preimage.payment_hash()
}
