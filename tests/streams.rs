//! What outlives its request: a stream is charged once and can be cut when the
//! token expires, and an upgraded connection learns when that is.

#[path = "support/wire.rs"]
mod wire;

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::Body;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::http::{HeaderMap, HeaderValue, Request, Response};
use axum::response::IntoResponse;
use axum::routing::{any, get};
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt as _;
use l402::{
    Access, Clock, DevBackend, FixedClock, Gate, Grant, HOUR, Issuer, KeyRing, L402Layer, MemoryLedger,
    Network, Offer, Paid, Price, RootKey, SettleLayer,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tower::{Layer as _, ServiceExt as _, service_fn};
use wire::{NOW, Paid as Token, Shop, read_head, serve, within};

/// Runs with tokio's clock, which a test sets forward.
#[derive(Clone, Copy, Debug)]
struct TokioClock(Instant);

impl Clock for TokioClock {
    fn now(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(NOW) + self.0.elapsed()
    }
}

fn shop() -> Shop {
    let clock = TokioClock(Instant::now());
    let wallet = DevBackend::with_clock(clock);
    let issuer = Issuer::builder(KeyRing::new(RootKey::generate()), wallet.clone())
        .with_network(Network::Regtest)
        .with_ledger(MemoryLedger::new())
        .with_clock(clock);
    Shop { clock: FixedClock::at(NOW), wallet, issuer: issuer.build().unwrap() }
}

/// Lets this much time go by at once.
async fn pass_time(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

/// Ten uses within an hour: with the five minutes in which they can be paid.
fn counted(shop: &Shop, name: &str) -> Gate {
    Gate::new(&shop.issuer, name, Offer::new(Price::sat(1), Access::uses(10).within(HOUR))).unwrap()
}

const GOOD_FOR: u64 = 3600 + 300;

async fn used(shop: &Shop, token: &Token) -> u64 {
    shop.issuer.account(token.preimage.payment_hash()).await.unwrap().map_or(0, |account| account.used)
}

/// A body whose frames come when the test sends them.
struct Fed(mpsc::Receiver<Bytes>);

impl http_body::Body for Fed {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|frame| frame.map(|bytes| Ok(Frame::data(bytes))))
    }
}

/// A handler that streams events once, as they are fed.
fn events() -> (mpsc::Sender<Bytes>, axum::routing::MethodRouter) {
    let (feed, frames) = mpsc::channel(1);
    let frames = Arc::new(Mutex::new(Some(frames)));
    let handler = get(move || {
        let frames = frames.lock().unwrap().take().expect("called once");
        async { ([("content-type", "text/event-stream")], Body::new(Fed(frames))) }
    });
    (feed, handler)
}

/// Reads one chunk of a chunked body; the last one is empty.
async fn chunk(socket: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n") {
        bytes.push(within(socket.read_u8()).await.unwrap());
    }
    let len = usize::from_str_radix(std::str::from_utf8(&bytes).unwrap().trim_end(), 16).unwrap();
    let mut data = vec![0; len + 2];
    within(socket.read_exact(&mut data)).await.unwrap();
    data.truncate(len);
    data
}

#[tokio::test]
async fn server_sent_events_cost_one_use_and_end_when_the_token_expires() {
    let shop = shop();
    let (feed, handler) = events();
    let layer = L402Layer::new(counted(&shop, "svc")).cut_at_expiry();
    let server = serve(Router::new().route("/", handler.route_layer(layer))).await;
    let token = shop.pay(&server.get("/", &[]).await);

    let mut socket = server.open("GET /", &[&token.line()]).await;
    let head = read_head(&mut socket).await;
    assert_eq!((head.status, head.header("transfer-encoding")), (200, Some("chunked")));
    for _ in 0..3 {
        feed.send("data: 1\n\n".into()).await.unwrap();
        assert_eq!(chunk(&mut socket).await, b"data: 1\n\n");
        pass_time(Duration::from_secs(600)).await;
    }
    pass_time(Duration::from_secs(GOOD_FOR - 1800)).await;
    // Nobody feeds it, and it ends.
    assert_eq!(chunk(&mut socket).await, b"");
    within(feed.closed()).await;
    assert_eq!(used(&shop, &token).await, 1);
    assert_eq!(server.get("/", &[&token.line()]).await.code(), "expired");
}

#[tokio::test]
async fn a_stream_goes_on_past_the_expiry_unless_the_layer_cuts_it() {
    let shop = shop();
    let (feed, handler) = events();
    let layer = L402Layer::new(counted(&shop, "svc"));
    let server = serve(Router::new().route("/", handler.route_layer(layer))).await;
    let token = shop.pay(&server.get("/", &[]).await);
    let mut socket = server.open("GET /", &[&token.line()]).await;
    assert_eq!(read_head(&mut socket).await.status, 200);
    pass_time(Duration::from_secs(GOOD_FOR)).await;
    feed.send("late".into()).await.unwrap();
    assert_eq!(chunk(&mut socket).await, b"late");
    drop(feed);
    assert_eq!(chunk(&mut socket).await, b"");
}

/// Frames that are always ready.
struct Endless(SizeHint);

impl http_body::Body for Endless {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(Some(Ok(Frame::data("more".into()))))
    }

    fn size_hint(&self) -> SizeHint {
        self.0
    }
}

/// What a layer that cuts makes of an endless body, when its token expires
/// after two frames.
async fn after_expiry(
    gate: &Gate,
    clock: &FixedClock,
    header: (&'static str, &'static str),
    hint: SizeHint,
) -> Cut {
    let inner = service_fn(move |_: Request<()>| {
        let response = Response::builder().header(header.0, header.1);
        let response = response.body(Endless(hint)).unwrap();
        async { Ok::<_, Infallible>(response) }
    });
    let request = Request::get("/").header("authorization", gate.test_credential()).body(()).unwrap();
    let service = L402Layer::new(gate.clone()).cut_at_expiry().layer(inner);
    let mut body = service.oneshot(request).await.unwrap().into_body();
    for _ in 0..2 {
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "more");
        assert!(!http_body::Body::is_end_stream(&body));
    }
    clock.advance(HOUR);
    let cut = match body.frame().await.map(Result::unwrap) {
        Some(frame) if frame.is_data() => return Cut::No,
        Some(frame) => Cut::WithTrailers(frame.into_trailers().unwrap()),
        None => Cut::Yes,
    };
    assert!(body.frame().await.is_none());
    assert!(http_body::Body::is_end_stream(&body));
    assert_eq!(http_body::Body::size_hint(&body).exact(), Some(0));
    cut
}

#[derive(Debug, PartialEq)]
enum Cut {
    No,
    Yes,
    WithTrailers(HeaderMap),
}

#[tokio::test]
async fn a_stream_that_never_pauses_is_cut_and_a_body_of_known_length_is_whole() {
    let shop = Shop::new();
    let gate = counted(&shop, "svc");
    let mut status = HeaderMap::new();
    status.insert("grpc-status", HeaderValue::from_static("13"));
    status.insert("grpc-message", HeaderValue::from_static("payment required"));
    let mut at_least = SizeHint::new();
    at_least.set_lower(100);
    let sse = ("content-type", "text/event-stream");
    let grpc = ("content-type", "application/grpc+proto");
    for (header, hint, cut) in [
        (sse, SizeHint::new(), Cut::Yes),
        (sse, at_least, Cut::Yes),
        (sse, SizeHint::with_exact(1 << 30), Cut::No),
        // As of a file, whose body does not tell it.
        (("content-length", "1073741824"), SizeHint::new(), Cut::No),
        (grpc, SizeHint::new(), Cut::WithTrailers(status)),
        (("content-type", "application/grpc-web+proto"), SizeHint::new(), Cut::Yes),
    ] {
        assert_eq!(after_expiry(&gate, &shop.clock, header, hint).await, cut, "{header:?} {hint:?}");
    }
}

#[tokio::test]
async fn what_cost_nothing_is_not_cut() {
    let shop = shop();
    let free = Gate::new(&shop.issuer, "free", Offer::new(Price::Free, Access::pass(HOUR))).unwrap();
    let (feed, handler) = events();
    let layer = L402Layer::new(free).cut_at_expiry();
    let server = serve(Router::new().route("/", handler.route_layer(layer))).await;
    let mut socket = server.open("GET /", &[]).await;
    assert_eq!(read_head(&mut socket).await.status, 200);
    pass_time(Duration::from_secs(10 * GOOD_FOR)).await;
    feed.send("still".into()).await.unwrap();
    assert_eq!(chunk(&mut socket).await, b"still");
}

/// Says back what it hears, until the token expires.
async fn echo(mut socket: WebSocket, grant: Grant) {
    loop {
        tokio::select! {
            () = grant.expired() => {
                socket.send(Message::Text("expired".into())).await.ok();
                break;
            }
            Some(Ok(message)) = socket.recv() => {
                if let Message::Text(text) = message {
                    socket.send(Message::Text(text)).await.ok();
                }
            }
            else => break,
        }
    }
}

const UPGRADE: [&str; 4] = [
    "Connection: upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
];

/// A text frame of a client, under a mask of zeros (RFC 6455, section 5.2).
async fn say(socket: &mut TcpStream, text: &str) {
    let len = u8::try_from(text.len()).unwrap();
    let frame = [&[0x81, 0x80 | len, 0, 0, 0, 0], text.as_bytes()].concat();
    socket.write_all(&frame).await.unwrap();
}

/// A short text frame of a server.
async fn hear(socket: &mut TcpStream) -> String {
    let mut head = [0; 2];
    within(socket.read_exact(&mut head)).await.unwrap();
    assert_eq!(head[0], 0x81, "a text frame");
    let mut text = vec![0; usize::from(head[1])];
    within(socket.read_exact(&mut text)).await.unwrap();
    String::from_utf8(text).unwrap()
}

#[tokio::test]
async fn a_websocket_costs_one_use_and_ends_when_the_token_expires() {
    let shop = shop();
    let (layered, extracted) = (counted(&shop, "layered"), counted(&shop, "extracted"));
    let by_grant =
        async |upgrade: WebSocketUpgrade, grant: Grant| upgrade.on_upgrade(|socket| echo(socket, grant));
    let by_paid = async |upgrade: WebSocketUpgrade, paid: Paid| {
        let grant = paid.grant().clone();
        paid.settle(upgrade.on_upgrade(|socket| echo(socket, grant)))
    };
    let app = Router::new()
        .route("/layered", any(by_grant).layer(L402Layer::new(layered).cut_at_expiry()))
        .route("/extracted", any(by_paid))
        .route("/settled", any(by_paid).layer(SettleLayer::new()))
        .with_state(extracted);
    let server = serve(app).await;
    for path in ["/layered", "/extracted", "/settled"] {
        let mut socket = server.open(&format!("GET {path}"), &UPGRADE).await;
        let refused = read_head(&mut socket).await;
        assert_eq!(refused.status, 402, "{path}");
        let token = shop.pay(&refused);

        let line = token.line();
        let mut socket = server.open(&format!("GET {path}"), &[&UPGRADE[..], &[&line]].concat()).await;
        let switched = read_head(&mut socket).await;
        assert_eq!((switched.status, switched.header("upgrade")), (101, Some("websocket")), "{path}");
        assert_eq!(switched.header("ratelimit").map(|field| field.contains("r=9;")), Some(true), "{path}");
        for text in ["one", "two", "three"] {
            say(&mut socket, text).await;
            assert_eq!(hear(&mut socket).await, text);
            pass_time(Duration::from_secs(1200)).await;
        }
        assert_eq!(used(&shop, &token).await, 1, "{path}");
        pass_time(Duration::from_secs(GOOD_FOR - 3600)).await;
        assert_eq!(hear(&mut socket).await, "expired", "{path}");
        let mut rest = Vec::new();
        within(socket.read_to_end(&mut rest)).await.unwrap();
        assert_eq!(used(&shop, &token).await, 1, "{path}");
    }
}

/// Behind a layer the handshake is charged by the handler's answer; `Paid`
/// behind `WebSocketUpgrade` charges a handshake that can succeed alone.
#[tokio::test]
async fn a_handshake_that_fails_is_charged_by_a_layer_and_not_by_paid() {
    let shop = shop();
    let gate = counted(&shop, "svc");
    let handler = async |upgrade: WebSocketUpgrade, grant: Grant| {
        upgrade.on_upgrade(|socket| echo(socket, grant)).into_response()
    };
    let by_paid = async |upgrade: WebSocketUpgrade, paid: Paid| {
        let grant = paid.grant().clone();
        paid.settle(upgrade.on_upgrade(|socket| echo(socket, grant)))
    };
    let app = Router::new()
        .route("/layer", any(handler).layer(L402Layer::new(gate.clone())))
        .route("/paid", any(by_paid))
        .with_state(gate);
    let server = serve(app).await;
    let token = shop.pay(&server.get("/layer", &[]).await);
    for (path, spent) in [("/paid", 0), ("/layer", 1)] {
        let answer = server.get(path, &[&token.line()]).await;
        assert_eq!((answer.status, used(&shop, &token).await), (400, spent), "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_grant_expires_at_its_moment_or_never() {
    let shop = shop();
    let gate = counted(&shop, "svc");
    let mut head =
        Request::get("/").header("authorization", gate.test_credential()).body(()).unwrap().into_parts().0;
    let admission = gate.admit(&mut head).await.unwrap();
    let begun = Instant::now();
    admission.grant().expired().await;
    assert_eq!(begun.elapsed().as_secs(), 3600);
    admission.grant().clone().expired().await;
    assert_eq!(begun.elapsed().as_secs(), 3600, "at once");

    let free = Gate::new(&shop.issuer, "free", Offer::new(Price::Free, Access::once())).unwrap();
    let mut head = Request::new(()).into_parts().0;
    let admission = free.admit(&mut head).await.unwrap();
    tokio::time::timeout(100 * 366 * l402::DAY, admission.grant().expired()).await.unwrap_err();

    Grant::test().with_expires_at(UNIX_EPOCH).build().expired().await;
}
