//! A gate before hyper alone, over HTTP/1.1 and HTTP/2.

#![allow(missing_docs)]

#[path = "support/sockets.rs"]
mod sockets;
#[path = "support/wire.rs"]
mod wire;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use l402::{Access, Gate, Grant, L402Layer, Offer, Price};
use sockets::{BOTH, is_gated};
use tokio::net::TcpListener;
use tower::Layer as _;
use wire::Shop;

type Answer = Result<Response<Full<Bytes>>, Infallible>;

fn answer(path: &str, grant: &Grant) -> Response<Full<Bytes>> {
    let left = format!("{} left", grant.remaining().unwrap());
    let status = if path == "/broken" { 500 } else { 200 };
    Response::builder().status(status).body(left.into()).unwrap()
}

/// Serves until the test ends.
async fn serve<S, B>(service: S) -> SocketAddr
where
    S: hyper::service::Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send,
    B: http_body::Body<Data = Bytes, Error = Infallible> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let service = service.clone();
            tokio::spawn(async move {
                auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await
            });
        }
    });
    address
}

fn gate(shop: &Shop) -> Gate {
    Gate::new(&shop.issuer, "api", Offer::new(Price::sat(2), Access::uses(3))).unwrap()
}

#[tokio::test]
async fn a_tower_service_is_gated() {
    let shop = Shop::new();
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    let handler = move |request: Request<Incoming>| {
        counted.fetch_add(1, Ordering::SeqCst);
        let response = answer(request.uri().path(), request.extensions().get().unwrap());
        async move { Answer::Ok(response) }
    };
    let service = L402Layer::new(gate(&shop)).layer(tower::service_fn(handler));
    let address = serve(TowerToHyperService::new(service)).await;
    for http in BOTH {
        let account = is_gated(address, http, &shop.wallet).await;
        assert_eq!(shop.issuer.account(account).await.unwrap().unwrap().used, 3);
    }
    assert_eq!(calls.load(Ordering::SeqCst), 2 * 4, "three uses and one that was given back");
}

/// Without tower: [`Gate::admit`] and `Admission::settle`.
#[tokio::test]
async fn a_function_that_asks_the_gate_itself_is_gated() {
    let shop = Shop::new();
    let gate = gate(&shop);
    let address = serve(service_fn(move |request: Request<Incoming>| {
        let gate = gate.clone();
        async move {
            let (mut head, _) = request.into_parts();
            Answer::Ok(match gate.admit(&mut head).await {
                Ok(admission) => {
                    let response = answer(head.uri.path(), admission.grant());
                    admission.settle(response)
                }
                Err(refused) => refused.map(Full::new),
            })
        }
    }))
    .await;
    for http in BOTH {
        let account = is_gated(address, http, &shop.wallet).await;
        assert_eq!(shop.issuer.account(account).await.unwrap().unwrap().used, 3);
    }
}

#[tokio::test]
async fn the_body_of_a_paid_request_reaches_the_handler() {
    let shop = Shop::new();
    let gate = gate(&shop);
    let credential = gate.test_credential();
    let echo = |request: Request<Incoming>| async {
        let body = request.into_body().collect().await.unwrap().to_bytes();
        Answer::Ok(Response::new(body.into()))
    };
    let service = L402Layer::new(gate).layer(tower::service_fn(echo));
    let address = serve(TowerToHyperService::new(service)).await;
    for http in BOTH {
        let mut paid = Request::post("/").body(Full::from(vec![7; 100_000])).unwrap();
        paid.headers_mut().insert("authorization", credential.clone());
        let answer = sockets::exchange(address, http, paid).await;
        assert_eq!((answer.status().as_u16(), answer.body().len()), (200, 100_000));
    }
}
