//! A gate before tonic, with a generated client over HTTP/2, and over HTTP/1.1
//! for gRPC-web.

#![allow(missing_docs)]

#[path = "support/sockets.rs"]
mod sockets;
#[path = "support/station.rs"]
mod station;
#[path = "support/wire.rs"]
mod wire;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{Request, StatusCode};
use http_body_util::Full;
use l402::{
    Access, Basis, Challenge, Gate, GateBuilder, L402, L402Layer, Ledger as _, MemoryLedger, Offer, Price,
};
use prost::Message as _;
use sockets::{BOTH, Http, exchange};
use station::weather::weather_server::WeatherServer;
use station::weather::{Empty, Place, Report};
use station::{KINDS, Kind, Site, Station, call, challenge, serve};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use tonic::server::NamedService;
use tonic::service::LayerExt as _;
use tonic::transport::Server;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::{ServerReflectionRequest, server_reflection_response::MessageResponse};
use tonic_web::{GrpcWebLayer, GrpcWebService};
use tower::Layer as _;
use wire::{Paid, Shop, within};

fn gate(shop: &Shop, access: Access) -> Gate {
    gate_builder(shop, access).build().unwrap()
}

fn gate_builder(shop: &Shop, access: Access) -> GateBuilder {
    Gate::builder(&shop.issuer, "weather", Offer::new(Price::sat(3), access))
}

/// Behind the gate on its own, and behind that of the whole server.
async fn sites(gate: &Gate, station: &Station) -> [Site; 2] {
    let layer = L402Layer::new(gate.clone());
    [
        serve(Server::builder().add_service(layer.named_layer(station.server()))).await,
        serve(Server::builder().layer(layer).add_service(station.server())).await,
    ]
}

/// What an unpaid call is asked, paid.
async fn buy(shop: &Shop, site: &Site) -> Paid {
    let refused = call(&mut site.client(&[]), Kind::Unary, "Rome").await.unwrap_err();
    let challenge = challenge(&refused);
    let preimage = shop.wallet.pay(challenge.invoice()).unwrap();
    Paid { token: challenge.token().clone(), preimage }
}

async fn used(shop: &Shop, paid: &Paid) -> u64 {
    let account = shop.issuer.account(paid.preimage.payment_hash()).await.unwrap();
    account.map_or(0, |account| account.used)
}

#[tokio::test]
async fn an_unpaid_call_of_every_kind_is_answered_with_a_challenge() {
    let (shop, station) = (Shop::new(), Station::default());
    let gate = gate(&shop, Access::uses(5));
    let mut invoices = HashSet::new();
    for site in sites(&gate, &station).await {
        for kind in KINDS {
            let refused = call(&mut site.client(&[]), kind, "Rome").await.unwrap_err();
            assert_eq!((refused.code(), refused.message()), (Code::Internal, "payment required"), "{kind:?}");
            assert_eq!(refused.metadata().get("cache-control").unwrap(), "no-store");
            assert!(invoices.insert(challenge(&refused).invoice().to_owned()), "an invoice of its own");
        }
    }
    assert_eq!(station.calls(), 0);
}

#[tokio::test]
async fn a_paid_call_of_every_kind_is_admitted_and_is_one_use() {
    let (shop, station) = (Shop::new(), Station::default());
    let gate = gate(&shop, Access::uses(4));
    for site in sites(&gate, &station).await {
        let paid = buy(&shop, &site).await;
        let mut client = site.client(&[("authorization", paid.value())]);
        for (kind, messages, left) in
            [(Kind::Unary, 1, 3), (Kind::FromServer, 7, 2), (Kind::ToServer, 1, 1), (Kind::BothWays, 2, 0)]
        {
            let (metadata, came) = call(&mut client, kind, "Rome").await.unwrap();
            assert_eq!(came, messages, "{kind:?}");
            let said = metadata.get("ratelimit").unwrap().to_str().unwrap();
            assert!(said.starts_with(&format!(r#""weather";r={left};"#)), "{kind:?}: {said}");
            assert_eq!(metadata.get("cache-control").unwrap(), "private");
            let seen = station.last_seen();
            assert_eq!((seen.grant.unwrap().remaining(), &*seen.secrets), (Some(left), &[][..]), "{kind:?}");
            assert_eq!(used(&shop, &paid).await, 4 - left);
        }
        for kind in KINDS {
            let refused = call(&mut client, kind, "Rome").await.unwrap_err();
            assert_eq!((refused.code(), refused.message()), (Code::Internal, "payment required"), "{kind:?}");
            assert_ne!(challenge(&refused).token().as_bytes(), paid.token.as_bytes());
        }
        assert_eq!(used(&shop, &paid).await, 4);
    }
    assert_eq!(station.calls(), 8);
}

#[tokio::test]
async fn a_broken_credential_of_every_kind_of_call_is_refused_and_sold_nothing() {
    let (shop, station) = (Shop::new(), Station::default());
    let gate = gate(&shop, Access::uses(5));
    for site in sites(&gate, &station).await {
        let paid = buy(&shop, &site).await;
        let other = Paid { preimage: buy(&shop, &site).await.preimage, ..paid.clone() };
        for (value, message) in [
            (other.value(), "the preimage is not that of the token's invoice"),
            ("L402 %%%:00".into(), "the preimage is not 64 hex digits"),
        ] {
            for kind in KINDS {
                let mut client = site.client(&[("authorization", value.clone())]);
                let refused = call(&mut client, kind, "Rome").await.unwrap_err();
                assert_eq!((refused.code(), refused.message()), (Code::Unauthenticated, message));
                assert_eq!(refused.metadata().get("www-authenticate").unwrap(), "L402");
            }
        }
    }
    assert_eq!(station.calls(), 0);
}

#[tokio::test]
async fn the_credential_stands_in_one_of_three_metadata() {
    let (shop, station) = (Shop::new(), Station::default());
    let gate = gate(&shop, Access::uses(20));
    let [site, _] = sites(&gate, &station).await;
    let paid = buy(&shop, &site).await;
    for (name, value) in [("authorization", paid.value()), ("macaroon", paid.hex()), ("token", paid.hex())] {
        for kind in KINDS {
            call(&mut site.client(&[(name, value.clone())]), kind, "Rome").await.unwrap();
            assert_eq!(station.last_seen().secrets, [""; 0], "{name}");
        }
    }
    assert_eq!(used(&shop, &paid).await, 12);
    // Those of the service's own reach it.
    let both =
        [("authorization", paid.value()), ("authorization", "Bearer x".into()), ("token", "abc".into())];
    call(&mut site.client(&both), Kind::Unary, "Rome").await.unwrap();
    assert_eq!(station.last_seen().secrets, ["Bearer x", "abc"]);
}

#[tokio::test]
async fn an_error_in_the_head_gives_the_use_back_if_it_is_the_servers() {
    let (shop, station) = (Shop::new(), Station::default());
    let gate = gate(&shop, Access::uses(300));
    for site in sites(&gate, &station).await {
        let paid = buy(&shop, &site).await;
        let mut client = site.client(&[("authorization", paid.value())]);
        let mut charged = 0;
        for code in 1..=16 {
            for kind in KINDS {
                let failed = call(&mut client, kind, &format!("code {code}")).await.unwrap_err();
                assert_eq!((failed.code(), failed.message()), (Code::from_i32(code), "as asked"));
                charged += u64::from(![2, 4, 8, 13, 14, 15].contains(&code));
                assert_eq!(used(&shop, &paid).await, charged, "{code} {kind:?}");
            }
        }
    }
}

#[tokio::test]
async fn an_error_within_a_stream_costs_the_use() {
    let (shop, station) = (Shop::new(), Station::default());
    let gate = gate(&shop, Access::uses(5));
    for site in sites(&gate, &station).await {
        let paid = buy(&shop, &site).await;
        let mut client = site.client(&[("authorization", paid.value())]);
        let response = client.week(Place { name: "late".into() }).await.unwrap();
        assert!(response.metadata().get("ratelimit").is_some());
        let mut stream = response.into_inner();
        assert!(stream.message().await.unwrap().is_some());
        assert_eq!(stream.message().await.unwrap_err().code(), Code::Unavailable);
        assert_eq!(used(&shop, &paid).await, 1);
    }
}

#[tokio::test]
async fn messages_pass_both_ways_as_they_come() {
    let (shop, station) = (Shop::new(), Station::default());
    let gate = gate(&shop, Access::uses(5));
    for site in sites(&gate, &station).await {
        let paid = buy(&shop, &site).await;
        let mut client = site.client(&[("authorization", paid.value())]);
        let (places, receiver) = tokio::sync::mpsc::channel(1);
        places.send(Place { name: "Rome".into() }).await.unwrap();
        let mut reports = client.follow(ReceiverStream::new(receiver)).await.unwrap().into_inner();
        assert_eq!(within(reports.message()).await.unwrap().unwrap().text, "Rome: sun");
        for name in ["Oslo", "Cairo"] {
            places.send(Place { name: name.into() }).await.unwrap();
            assert_eq!(within(reports.message()).await.unwrap().unwrap().text, format!("{name}: sun"));
        }
        drop(places);
        assert!(within(reports.message()).await.unwrap().is_none());
        assert_eq!(used(&shop, &paid).await, 1);
    }
}

/// A deadline that passes is a client that leaves.
#[tokio::test]
async fn a_call_that_ends_before_the_head_costs_a_single_use_alone() {
    for (access, cost) in [(Access::uses(5), 0), (Access::once(), 1)] {
        for has_deadline in [false, true] {
            let ledger = Arc::new(MemoryLedger::new());
            let shop = Shop::with(|builder| builder.with_ledger(ledger.clone()));
            let station = Station::default();
            let gate = gate(&shop, access);
            let [site, _] = sites(&gate, &station).await;
            let paid = buy(&shop, &site).await;
            let mut client = site.client(&[("authorization", paid.value())]);
            let mut request = tonic::Request::new(Place { name: "nowhere, ever".into() });
            if has_deadline {
                request.set_timeout(Duration::from_millis(100));
            }
            let asked = tokio::spawn(async move { client.today(request).await });
            within(station.hangs.notified()).await;
            if has_deadline {
                asked.await.unwrap().unwrap_err();
            } else {
                asked.abort();
            }
            within(async {
                while !ledger.open_reservations().await.unwrap().is_empty() {
                    tokio::task::yield_now().await;
                }
            })
            .await;
            assert_eq!(used(&shop, &paid).await, cost, "{access:?}, deadline: {has_deadline}");
        }
    }
}

#[tokio::test]
async fn one_method_is_free_if_the_gate_lets_it_pass() {
    let (shop, station) = (Shop::new(), Station::default());
    let gate = gate_builder(&shop, Access::uses(5));
    let gate = gate.free_if(|head| head.uri.path() == "/weather.Weather/Ping").build().unwrap();
    for site in sites(&gate, &station).await {
        let paid = buy(&shop, &site).await;
        for metadata in [vec![], vec![("authorization", paid.value())]] {
            site.client(&metadata).ping(Empty {}).await.unwrap();
            let seen = station.last_seen();
            assert_eq!((seen.grant.unwrap().basis(), seen.secrets), (Basis::FreeIf, vec![]));
        }
        assert_eq!(used(&shop, &paid).await, 0);
    }
}

async fn health(site: &Site) -> Result<i32, Code> {
    let checked = HealthClient::new(site.channel.clone()).check(HealthCheckRequest::default()).await;
    checked.map(|answer| answer.into_inner().status).map_err(|status| status.code())
}

async fn reflection(site: &Site) -> Result<Vec<String>, Code> {
    let request = MessageRequest::ListServices(String::new());
    let request = ServerReflectionRequest { host: String::new(), message_request: Some(request) };
    let answer = ServerReflectionClient::new(site.channel.clone())
        .server_reflection_info(tokio_stream::once(request))
        .await
        .map_err(|status| status.code())?;
    match answer.into_inner().message().await.unwrap().unwrap().message_response {
        Some(MessageResponse::ListServicesResponse(list)) => {
            Ok(list.service.into_iter().map(|service| service.name).collect())
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn health_and_reflection_are_free_where_the_server_says_so() {
    let (shop, station) = (Shop::new(), Station::default());
    let all = gate_builder(&shop, Access::uses(5));
    let free = all.clone().free_if(|head| head.uri.path().starts_with("/grpc.")).build().unwrap();
    let all = L402Layer::new(all.build().unwrap());
    let services = || {
        let reflection = tonic_reflection::server::Builder::configure().build_v1().unwrap();
        (tonic_health::server::health_reporter().1, reflection)
    };
    let reflected = Ok(vec!["grpc.reflection.v1.ServerReflection".to_owned()]);

    let (of_health, of_reflection) = services();
    let weather = all.named_layer(station.server());
    let beside =
        serve(Server::builder().add_service(weather).add_service(of_health).add_service(of_reflection)).await;
    let (of_health, of_reflection) = services();
    let weather = station.server();
    let let_pass = serve(
        Server::builder()
            .layer(L402Layer::new(free))
            .add_service(weather)
            .add_service(of_health)
            .add_service(of_reflection),
    )
    .await;
    for site in [&beside, &let_pass] {
        assert_eq!((health(site).await, reflection(site).await), (Ok(1), reflected.clone()));
        assert_eq!(
            call(&mut site.client(&[]), Kind::Unary, "Rome").await.unwrap_err().code(),
            Code::Internal
        );
    }

    let (of_health, of_reflection) = services();
    let gated = serve(Server::builder().layer(all).add_service(of_health).add_service(of_reflection)).await;
    assert_eq!((health(&gated).await, reflection(&gated).await), (Err(Code::Internal), Err(Code::Internal)));
    assert_eq!(station.calls(), 0);
}

/// The documented trap: what the server does not have is sold all the same.
#[tokio::test]
async fn a_method_that_does_not_exist_is_charged() {
    let (shop, station) = (Shop::new(), Station::default());
    let gate = gate(&shop, Access::uses(5));
    for site in sites(&gate, &station).await {
        let paid = buy(&shop, &site).await;
        let request = |credential: &str| {
            let request =
                Request::post("/weather.Weather/Nothing").header("content-type", "application/grpc");
            request.header("authorization", credential).body(Full::default()).unwrap()
        };
        let answer = exchange(site.address, Http::Two, request("Bearer x")).await;
        assert_eq!(answer.headers()["grpc-status"], "13");
        let answer = exchange(site.address, Http::Two, request(&paid.value())).await;
        assert_eq!(answer.headers()["grpc-status"], "12");
        assert_eq!(used(&shop, &paid).await, 1);
    }
}

fn name_of<S: NamedService>(_: &S) -> &'static str {
    S::NAME
}

#[test]
fn a_service_behind_a_gate_keeps_its_name() {
    let (shop, station) = (Shop::new(), Station::default());
    let layer = L402Layer::new(gate(&shop, Access::uses(5)));
    let gated: L402<WeatherServer<Station>> = layer.layer(station.server());
    assert_eq!(name_of(&gated), "weather.Weather");
    let web: GrpcWebService<_> = GrpcWebLayer::new().layer(gated);
    assert_eq!(name_of(&web), "weather.Weather");
    assert_eq!(name_of(&layer.named_layer(station.server())), "weather.Weather");
}

/// A message as gRPC frames it.
fn framed(name: &str) -> Vec<u8> {
    let message = Place { name: name.into() }.encode_to_vec();
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[0], &length[..], &message].concat()
}

/// The frames of a gRPC-web body: whether it is the trailers, and what it holds.
fn frames(mut body: &[u8]) -> Vec<(bool, &[u8])> {
    let mut frames = Vec::new();
    while let Some((head, rest)) = body.split_at_checked(5) {
        let length = u32::from_be_bytes(head[1..].try_into().unwrap()) as usize;
        frames.push((head[0] & 0x80 != 0, &rest[..length]));
        body = &rest[length..];
    }
    assert!(body.is_empty());
    frames
}

#[tokio::test]
async fn grpc_web_is_sold_on_either_side_of_the_gate() {
    let (shop, station) = (Shop::new(), Station::default());
    let layer = L402Layer::new(gate(&shop, Access::uses(2)));
    let web = GrpcWebLayer::new();
    let http1 = || Server::builder().accept_http1(true);
    let sites = [
        serve(http1().add_service(web.layer(layer.layer(station.server())))).await,
        serve(http1().add_service(layer.layer(web.layer(station.server())))).await,
        serve(http1().layer(web).layer(layer.clone()).add_service(station.server())).await,
        serve(http1().layer(layer).layer(GrpcWebLayer::new()).add_service(station.server())).await,
    ];
    for (site, http) in sites.iter().flat_map(|site| BOTH.map(|http| (site, http))) {
        let ask = async |content_type: &str, credential: &str, name: &str| {
            let body = if content_type.contains("text") {
                STANDARD.encode(framed(name)).into_bytes()
            } else {
                framed(name)
            };
            let request = Request::post("/weather.Weather/Today")
                .header("content-type", content_type)
                .header("accept", content_type)
                .header("authorization", credential);
            let answer = exchange(site.address, http, request.body(Full::from(body)).unwrap()).await;
            assert_eq!(answer.status(), StatusCode::OK);
            assert_eq!(answer.headers()["content-type"], content_type);
            answer
        };
        let proto = "application/grpc-web+proto";
        let text = "application/grpc-web-text+proto";

        for content_type in [proto, text] {
            let refused = ask(content_type, "Bearer x", "Rome").await;
            assert_eq!(refused.headers()["grpc-status"], "13");
            assert_eq!(refused.headers()["grpc-message"], "payment required");
            assert_eq!(frames(refused.body()), []);
        }
        let refused = ask(proto, "Bearer x", "Rome").await;
        let challenge: Challenge = refused.headers()["www-authenticate"].to_str().unwrap().parse().unwrap();
        let preimage = shop.wallet.pay(challenge.invoice()).unwrap();
        let paid = Paid { token: challenge.token().clone(), preimage };

        let refused = ask(proto, "L402 x:y", "Rome").await;
        assert_eq!(refused.headers()["grpc-status"], "16");
        assert_eq!(refused.headers()["www-authenticate"], "L402");
        let failed = ask(proto, &paid.value(), "code 14").await;
        assert_eq!(failed.headers()["grpc-status"], "14");
        assert_eq!(used(&shop, &paid).await, 0);

        for (content_type, left) in [(proto, 1), (text, 0)] {
            let answer = ask(content_type, &paid.value(), "Rome").await;
            let said = answer.headers()["ratelimit"].to_str().unwrap();
            assert!(said.contains(&format!(";r={left};")), "{said}");
            let body = if left == 0 { decode_text(answer.body()) } else { answer.body().to_vec() };
            let [(false, message), (true, trailers)] = frames(&body)[..] else { panic!("{body:?}") };
            assert_eq!(Report::decode(message).unwrap().text, "Rome: sun");
            assert!(trailers.starts_with(b"grpc-status:0"), "{trailers:?}");
        }
        let refused = ask(proto, &paid.value(), "Rome").await;
        assert_eq!(refused.headers()["grpc-status"], "13");
        assert_eq!(used(&shop, &paid).await, 2);
    }
    assert_eq!(station.calls(), 4 * 2 * 3);
}

/// Each frame is encoded on its own, and padded.
fn decode_text(body: &[u8]) -> Vec<u8> {
    body.chunks(4).flat_map(|four| STANDARD.decode(four).unwrap()).collect()
}
