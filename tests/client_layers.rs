//! The paying layer around the HTTP clients that people have: tonic's channel,
//! hyper-util's client and reqwest.

#![allow(missing_docs)]

#[path = "support/bolt11.rs"]
mod bolt11;
#[path = "support/script.rs"]
mod script;
#[path = "support/station.rs"]
mod station;
#[path = "support/wire.rs"]
mod wire;

use std::error::Error as _;

use axum::Router;
use axum::body::Bytes;
use axum::routing::post;
use http::{Request, Response};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use hyper_util::rt::TokioExecutor;
use l402::client::{Body, Budget, Error, ErrorKind, L402Client, L402ClientLayer, Limit};
use l402::{Access, DAY, Gate, L402Layer, Offer, Price};
use script::payer;
use station::weather::weather_client::WeatherClient;
use station::weather::{Place, Report};
use station::{Site, Station, serve as serve_tonic};
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Server};
use tower::{Layer as _, ServiceExt as _};
use wire::{Shop, serve};

async fn site(shop: &Shop, station: &Station, access: Access) -> Site {
    let gate = Gate::new(&shop.issuer, "weather", Offer::new(Price::sat(3), access)).unwrap();
    serve_tonic(Server::builder().layer(L402Layer::new(gate)).add_service(station.server())).await
}

fn client(site: &Site, layer: &L402ClientLayer) -> WeatherClient<L402Client<Channel>> {
    let layer = layer.clone().with_origin(&format!("http://{}", site.address)).unwrap();
    WeatherClient::new(layer.layer(site.channel.clone()))
}

#[tokio::test]
async fn every_kind_of_grpc_call_is_paid_for_and_streams_go_on() {
    for uses in [1, 100] {
        let (shop, station) = (Shop::new(), Station::default());
        let site = site(&shop, &station, Access::uses(uses)).await;
        let mut client = client(&site, &L402ClientLayer::new(payer(&shop)));
        let place = || Place { name: "Rome".into() };

        assert_eq!(client.today(place()).await.unwrap().into_inner().text, "Rome: sun");
        let week = client.week(place()).await.unwrap().into_inner();
        assert_eq!(week.map(Result::unwrap).collect::<Vec<_>>().await.len(), 7);

        // What is sent before the answer is sent again, and what comes later goes on.
        let (to_server, reports) = tokio::sync::mpsc::channel(1);
        let observed = {
            let mut client = client.clone();
            tokio::spawn(async move { client.observe(ReceiverStream::new(reports)).await })
        };
        for _ in 0..3 {
            to_server.send(Report { text: "sun".into() }).await.unwrap();
        }
        drop(to_server);
        assert_eq!(observed.await.unwrap().unwrap().into_inner().reports, 3);

        let (to_server, places) = tokio::sync::mpsc::channel(1);
        to_server.send(place()).await.unwrap();
        let mut reports = client.follow(ReceiverStream::new(places)).await.unwrap().into_inner();
        for _ in 0..3 {
            assert_eq!(reports.message().await.unwrap().unwrap().text, "Rome: sun");
            to_server.send(place()).await.unwrap();
        }
        drop(to_server);
        assert_eq!(reports.map(Result::unwrap).collect::<Vec<_>>().await.len(), 1);
        assert_eq!(shop.wallet.payments(), if uses == 1 { 4 } else { 1 });
    }
}

#[tokio::test]
async fn why_a_grpc_call_was_not_paid_for_is_the_source_of_its_status() {
    let (shop, station) = (Shop::new(), Station::default());
    let site = site(&shop, &station, Access::uses(9)).await;
    let payer = payer(&shop).with_budget(Budget::default().with_request_sat(2));
    let status = client(&site, &L402ClientLayer::new(payer)).today(Place::default()).await.unwrap_err();
    let error = status.source().and_then(|source| source.downcast_ref::<Error>()).expect("ours");
    assert_eq!(error.kind(), ErrorKind::OverBudget(Limit::Request));
    assert_eq!(shop.wallet.payments(), 0);

    // Without an origin nobody knows whose the token is.
    let status = WeatherClient::new(L402ClientLayer::new(shop.wallet.clone()).layer(site.channel.clone()));
    let status = { status }.today(Place::default()).await.unwrap_err();
    let error = status.source().and_then(|source| source.downcast_ref::<Error>()).expect("ours");
    assert_eq!(error.kind(), ErrorKind::Origin);
    assert_eq!((shop.wallet.payments(), station.calls()), (0, 0));
}

#[tokio::test]
async fn another_status_of_a_grpc_call_is_the_callers() {
    let (shop, station) = (Shop::new(), Station::default());
    let site = site(&shop, &station, Access::uses(100)).await;
    let mut client = client(&site, &L402ClientLayer::new(payer(&shop)));
    for code in [13, 5, 16, 14] {
        let status = client.today(Place { name: format!("code {code}") }).await.unwrap_err();
        assert_eq!(status.code() as i32, code);
    }
    assert_eq!(shop.wallet.payments(), 1);
}

/// A server that sends back what it got, for a payment.
async fn echo(shop: &Shop) -> (wire::Server, String) {
    let gate =
        Gate::new(&shop.issuer, "echo", Offer::new(Price::sat(3), Access::uses(3).within(DAY))).unwrap();
    let app = Router::new().route("/echo", post(async |body: Bytes| body).route_layer(L402Layer::new(gate)));
    let server = serve(app).await;
    let url = format!("http://{}/echo", server.address);
    (server, url)
}

fn streamed(n: usize) -> Body {
    let frames = (0..n).map(|_| Ok::<_, std::io::Error>(Frame::data(Bytes::from_static(b"text"))));
    Body::new(StreamBody::new(tokio_stream::iter(frames.collect::<Vec<_>>())))
}

async fn echoes<S, R>(paying: S, shop: &Shop, url: &str)
where
    S: tower::Service<Request<Body>, Response = Response<R>, Error = Error> + Clone,
    R: http_body::Body<Data = Bytes>,
    R::Error: std::fmt::Debug,
{
    for (body, expected, payments) in [
        (Body::from("text"), "text".to_owned(), 1),
        (streamed(1_000), "text".repeat(1_000), 1),
        (Body::from(()), String::new(), 1),
        (streamed(1_000), "text".repeat(1_000), 2),
    ] {
        let request = Request::post(url).body(body).unwrap();
        let response = paying.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), expected);
        assert_eq!(shop.wallet.payments(), payments);
    }
}

#[tokio::test]
async fn a_client_of_hyper_util_pays() {
    let shop = Shop::new();
    let (_server, url) = echo(&shop).await;
    let http = hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build_http::<Body>();
    echoes(L402ClientLayer::new(payer(&shop)).layer(http), &shop, &url).await;
}

#[tokio::test]
async fn reqwest_pays_by_a_closure() {
    let shop = Shop::new();
    let (_server, url) = echo(&shop).await;
    let http =
        reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).no_proxy().build().unwrap();
    let http = tower::service_fn(move |request: Request<Body>| {
        let http = http.clone();
        async move {
            let request = reqwest::Request::try_from(request.map(reqwest::Body::wrap))?;
            http.execute(request).await.map(Response::<reqwest::Body>::from)
        }
    });
    echoes(L402ClientLayer::new(payer(&shop)).layer(http), &shop, &url).await;
}

#[tokio::test]
async fn what_was_reserved_in_the_service_beneath_is_given_back() {
    let shop = Shop::new();
    let (_server, url) = echo(&shop).await;
    let http = hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build_http::<Body>();
    let http = tower::limit::ConcurrencyLimit::new(http, 1);
    echoes(L402ClientLayer::new(payer(&shop)).layer(http), &shop, &url).await;
}

#[tokio::test]
async fn what_was_paid_stands_in_the_response() {
    let shop = Shop::new();
    let (_server, url) = echo(&shop).await;
    let http = hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build_http::<Body>();
    let paying = L402ClientLayer::new(payer(&shop)).layer(http);
    for paid in [Some(3_000), None] {
        let response =
            paying.clone().oneshot(Request::post(&url).body(Body::from("text")).unwrap()).await.unwrap();
        let receipt = response.extensions().get::<l402::client::Receipt>();
        assert_eq!(receipt.map(|receipt| receipt.amount_msat), paid);
    }
}
