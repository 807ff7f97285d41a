//! What a paid response looks like on the wire: kept out of shared caches, and
//! otherwise the handler's own, be it a stream, an upgrade or a large upload.

#[path = "support/wire.rs"]
mod wire;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::TokioIo;
use l402::{Access, Gate, HOUR, L402Layer, Offer, Price};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tower::{Layer as _, ServiceExt as _, service_fn};
use wire::{Answer, NOW, Paid, Server, Shop, read_head, serve, within};

/// A metered gate: its decision waits for a ledger.
fn counted(shop: &Shop) -> Gate {
    Gate::new(&shop.issuer, "svc", Offer::new(Price::sat(1), Access::uses(10).within(HOUR))).unwrap()
}

async fn used(shop: &Shop, paid: &Paid) -> u64 {
    shop.issuer.account(paid.preimage.payment_hash()).await.unwrap().map_or(0, |account| account.used)
}

type Lines = &'static [(&'static str, &'static str)];

/// The lines of these headers, sorted.
fn caching(answer: &Answer) -> Vec<(&str, &str)> {
    let names = ["cache-control", "vary", "expires", "cdn-cache-control", "surrogate-control", "age"];
    let lines = names.iter().flat_map(|name| answer.all(name).into_iter().map(move |value| (*name, value)));
    lines.collect()
}

#[tokio::test]
async fn a_paid_response_is_kept_out_of_shared_caches() {
    let rows: &[(Lines, Lines)] = &[
        (&[], &[("cache-control", "private"), ("vary", "Authorization")]),
        (
            &[("cache-control", "public, max-age=60, s-maxage=600")],
            &[("cache-control", "private, max-age=60"), ("vary", "Authorization")],
        ),
        (
            &[("cache-control", "public"), ("cache-control", "max-age=60, proxy-revalidate")],
            &[("cache-control", "private, max-age=60"), ("vary", "Authorization")],
        ),
        (
            &[("cache-control", "no-store")],
            &[("cache-control", "private, no-store"), ("vary", "Authorization")],
        ),
        (
            &[("cache-control", "PUBLIC,S-MaxAge=9,Immutable")],
            &[("cache-control", "private, Immutable"), ("vary", "Authorization")],
        ),
        // Commas within quotes separate nothing.
        (
            &[("cache-control", r#"private="set-cookie, x-a", max-age=60, no-cache="x-b, public""#)],
            &[("cache-control", r#"private, max-age=60, no-cache="x-b, public""#), ("vary", "Authorization")],
        ),
        (
            &[
                ("expires", "Thu, 01 Jan 2099 00:00:00 GMT"),
                ("cdn-cache-control", "max-age=600"),
                ("surrogate-control", "max-age=600"),
            ],
            &[("cache-control", "private"), ("vary", "Authorization")],
        ),
        (
            &[("vary", "Accept-Encoding")],
            &[("cache-control", "private"), ("vary", "Accept-Encoding"), ("vary", "Authorization")],
        ),
        (
            &[("vary", "accept, authorization")],
            &[("cache-control", "private"), ("vary", "accept, authorization")],
        ),
        (&[("vary", "*")], &[("cache-control", "private"), ("vary", "*")]),
    ];
    for (sent, expected) in rows {
        for status in [StatusCode::OK, StatusCode::NOT_FOUND, StatusCode::INTERNAL_SERVER_ERROR] {
            let shop = Shop::new();
            let handler = get(move || async move {
                let mut response = status.into_response();
                for (name, value) in *sent {
                    response.headers_mut().append(*name, HeaderValue::from_static(value));
                }
                response
            });
            let server =
                serve(Router::new().route("/", handler.route_layer(L402Layer::new(counted(&shop))))).await;
            let paid = shop.pay(&server.get("/", &[]).await);
            let answer = server.get("/", &[&paid.line()]).await;
            assert_eq!(answer.status, status);
            assert_eq!(caching(&answer), *expected, "{sent:?}");
        }
    }
}

#[tokio::test]
async fn a_response_that_cost_nothing_is_the_handlers_own() {
    let shop = Shop::new();
    let gate = Gate::new(&shop.issuer, "free", Offer::new(Price::Free, Access::pass(HOUR))).unwrap();
    let handler = get(|| async { [("cache-control", "public, max-age=60"), ("expires", "0")] });
    let server = serve(Router::new().route("/", handler.route_layer(L402Layer::new(gate)))).await;
    let answer = server.get("/", &[]).await;
    assert_eq!(answer.status, 200);
    assert_eq!(caching(&answer), [("cache-control", "public, max-age=60"), ("expires", "0")]);
}

#[tokio::test]
async fn what_is_left_is_said_in_the_ratelimit_fields() {
    let shop = Shop::new();
    let fails = Arc::new(AtomicUsize::new(0));
    let failing = fails.clone();
    let handler = get(move || {
        let status = if failing.load(Ordering::SeqCst) == 1 { 500 } else { 200 };
        async move { StatusCode::from_u16(status).unwrap() }
    });
    let server = serve(Router::new().route("/", handler.route_layer(L402Layer::new(counted(&shop))))).await;
    let paid = shop.pay(&server.get("/", &[]).await);
    let seconds = 300 + 3600;
    for (n, left) in [(0, Some(9)), (0, Some(8)), (1, None), (0, Some(7))] {
        fails.store(n, Ordering::SeqCst);
        let answer = server.get("/", &[&paid.line()]).await;
        let field = left.map(|left| format!(r#""svc";r={left};t={seconds}"#));
        assert_eq!(answer.header("ratelimit"), field.as_deref());
        assert_eq!(answer.header("ratelimit-policy"), left.map(|_| r#""svc";q=10"#));
    }
    assert_eq!(used(&shop, &paid).await, 3, "the failure was given back");

    // What a holder left of it to whoever has the token from them.
    let handed_on = paid.attenuated("svc_max_uses=5").attenuated(&format!("svc_valid_until={}", NOW + 60));
    let answer = server.get("/", &[&handed_on.line()]).await;
    assert_eq!(answer.header("ratelimit-policy"), Some(r#""svc";q=5"#));
    assert_eq!(answer.header("ratelimit"), Some(r#""svc";r=1;t=60"#));
}

#[tokio::test]
async fn a_pass_says_no_ratelimit() {
    let shop = Shop::new();
    let gate = Gate::new(&shop.issuer, "svc", Offer::new(Price::sat(1), Access::pass(HOUR))).unwrap();
    let server = serve(Router::new().route("/", get(|| async {}).route_layer(L402Layer::new(gate)))).await;
    let paid = shop.pay(&server.get("/", &[]).await);
    let answer = server.get("/", &[&paid.line()]).await;
    assert_eq!(
        (answer.status, answer.header("ratelimit"), answer.header("ratelimit-policy")),
        (200, None, None)
    );
}

/// A body whose frames come when the test sends them.
struct Fed(mpsc::Receiver<Frame<Bytes>>);

impl http_body::Body for Fed {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|frame| frame.map(Ok))
    }
}

/// A connection of a real client.
async fn connect(server: &Server) -> hyper::client::conn::http1::SendRequest<Empty<Bytes>> {
    let socket = TcpStream::connect(server.address).await.unwrap();
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket)).await.unwrap();
    tokio::spawn(connection.with_upgrades());
    sender
}

fn request(method: Method, path: &str, paid: &Paid) -> Request<Empty<Bytes>> {
    let builder = Request::builder().method(method).uri(path).header("host", "localhost");
    builder.header("authorization", paid.value()).body(Empty::new()).unwrap()
}

#[tokio::test]
async fn a_stream_arrives_frame_by_frame() {
    let shop = Shop::new();
    let (feed, frames) = mpsc::channel(1);
    let frames = Arc::new(std::sync::Mutex::new(Some(frames)));
    let handler = get(move || {
        let frames = frames.lock().unwrap().take().expect("called once");
        async { ([("content-type", "text/event-stream")], Body::new(Fed(frames))) }
    });
    let server = serve(Router::new().route("/", handler.route_layer(L402Layer::new(counted(&shop))))).await;
    let paid = shop.pay(&server.get("/", &[]).await);

    let mut client = connect(&server).await;
    let mut response = within(client.send_request(request(Method::GET, "/", &paid))).await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    assert!(!response.headers().contains_key("content-length"));
    assert_eq!(used(&shop, &paid).await, 1, "charged when the head goes out");
    for n in 0..5 {
        let event = format!("data: {n}\n\n");
        feed.send(Frame::data(event.clone().into())).await.unwrap();
        // The next one is not sent before this one was read.
        let frame = within(response.body_mut().frame()).await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), event);
    }
    drop(feed);
    assert!(within(response.body_mut().frame()).await.is_none());
    assert_eq!(used(&shop, &paid).await, 1);
}

/// Frames that are known beforehand, with a hint that says so.
struct Known {
    frames: VecDeque<Frame<Bytes>>,
    between: (u64, u64),
}

impl http_body::Body for Known {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.frames.pop_front().map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.frames.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = SizeHint::new();
        hint.set_lower(self.between.0);
        hint.set_upper(self.between.1);
        hint
    }
}

#[tokio::test]
async fn frames_trailers_and_size_of_a_body_pass_unchanged() {
    let shop = Shop::new();
    let gate = counted(&shop);
    let inner = service_fn(|_: http::Request<()>| async {
        let mut trailers = HeaderMap::new();
        trailers.insert(HeaderName::from_static("grpc-status"), HeaderValue::from_static("0"));
        let frames = [Frame::data("a".into()), Frame::data("bc".into()), Frame::trailers(trailers)].into();
        Ok::<_, Infallible>(http::Response::new(Known { frames, between: (2, 7) }))
    });
    let request = http::Request::get("/").header("authorization", gate.test_credential()).body(()).unwrap();
    let mut body = L402Layer::new(gate).layer(inner).oneshot(request).await.unwrap().into_body();
    assert_eq!((body.size_hint().lower(), body.size_hint().upper()), (2, Some(7)));
    assert!(!body.is_end_stream());
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "a");
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "bc");
    assert_eq!(body.frame().await.unwrap().unwrap().into_trailers().unwrap()["grpc-status"], "0");
    assert!(body.is_end_stream());
    assert!(body.frame().await.is_none());
}

#[tokio::test]
async fn the_length_of_a_response_is_said_where_it_is_known() {
    let shop = Shop::new();
    let app = Router::new()
        .route("/text", get(|| async { "eleven byte" }))
        .route("/empty", get(|| async {}))
        .route("/none", get(|| async { StatusCode::NO_CONTENT }))
        .route_layer(L402Layer::new(counted(&shop)));
    let server = serve(app).await;
    let refused = server.get("/text", &[]).await;
    assert_eq!(refused.header("content-length"), Some(&*refused.body.len().to_string()));
    let paid = shop.pay(&refused);
    for (path, length) in [("/text", Some("11")), ("/empty", Some("0")), ("/none", None)] {
        let answer = server.get(path, &[&paid.line()]).await;
        assert_eq!(answer.header("content-length"), length, "{path}");
        assert_eq!(answer.header("transfer-encoding"), None, "{path}");
    }
    let head = server.send("HEAD /text", &[&paid.line()]).await;
    assert_eq!((head.header("content-length"), &*head.body), (Some("11"), &b""[..]));
}

#[tokio::test]
async fn one_connection_serves_refused_and_paid_requests_in_turn() {
    let shop = Shop::new();
    let server =
        serve(Router::new().route("/", get(|| async { "paid" }).route_layer(L402Layer::new(counted(&shop)))))
            .await;
    let paid = shop.pay(&server.get("/", &[]).await);
    let mut client = connect(&server).await;
    for n in 1..=3 {
        let mut unpaid = request(Method::GET, "/", &paid);
        unpaid.headers_mut().remove("authorization");
        let refused = within(client.send_request(unpaid)).await.unwrap();
        assert_eq!(refused.status(), 402);
        refused.into_body().collect().await.unwrap();
        let good = within(client.send_request(request(Method::GET, "/", &paid))).await.unwrap();
        assert_eq!(good.status(), 200);
        assert_eq!(good.into_body().collect().await.unwrap().to_bytes(), "paid");
        assert_eq!(used(&shop, &paid).await, n);
    }
}

/// Switches protocols, and says back what it hears, once.
async fn echo(mut request: Request) -> Response {
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let mut io = TokioIo::new(upgrade.await.unwrap());
        let mut heard = [0; 5];
        io.read_exact(&mut heard).await.unwrap();
        heard.reverse();
        io.write_all(&heard).await.unwrap();
    });
    let headers = [("connection", "upgrade"), ("upgrade", "echo")];
    (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
}

#[tokio::test]
async fn an_upgrade_works_through_the_gate_and_costs_one_use() {
    let shop = Shop::new();
    let server = serve(Router::new().route("/", any(echo).layer(L402Layer::new(counted(&shop))))).await;
    let upgrade = ["Connection: upgrade", "Upgrade: echo"];

    let mut socket = server.open("GET /", &upgrade).await;
    let refused = read_head(&mut socket).await;
    assert_eq!(refused.status, 402, "an upgrade is not free");
    let paid = shop.pay(&refused);

    let mut socket = server.open("GET /", &[upgrade[0], upgrade[1], &paid.line()]).await;
    let switched = read_head(&mut socket).await;
    assert_eq!((switched.status, switched.header("upgrade")), (101, Some("echo")));
    socket.write_all(b"hello").await.unwrap();
    let mut said = Vec::new();
    within(socket.read_to_end(&mut said)).await.unwrap();
    assert_eq!(said, b"olleh");
    assert_eq!(used(&shop, &paid).await, 1);

    // And with a client that knows upgrades.
    let mut client = connect(&server).await;
    let mut ask = request(Method::GET, "/", &paid);
    ask.headers_mut().insert("connection", HeaderValue::from_static("upgrade"));
    ask.headers_mut().insert("upgrade", HeaderValue::from_static("echo"));
    let response = within(client.send_request(ask)).await.unwrap();
    assert_eq!(response.status(), 101);
    let mut io = TokioIo::new(within(hyper::upgrade::on(response)).await.unwrap());
    io.write_all(b"again").await.unwrap();
    let mut said = String::new();
    within(io.read_to_string(&mut said)).await.unwrap();
    assert_eq!(said, "niaga");
    assert_eq!(used(&shop, &paid).await, 2);
}

/// A route for uploads, that answers with the length it read.
async fn upload_server(shop: &Shop) -> (Server, Arc<AtomicUsize>) {
    let calls = Arc::new(AtomicUsize::new(0));
    let seen = calls.clone();
    let handler = post(move |request: Request| {
        seen.fetch_add(1, Ordering::SeqCst);
        async move { request.into_body().collect().await.unwrap().to_bytes().len().to_string() }
    });
    (serve(Router::new().route("/", handler.route_layer(L402Layer::new(counted(shop))))).await, calls)
}

#[tokio::test]
async fn a_refusal_comes_without_the_body_being_read() {
    let shop = Shop::new();
    let (server, calls) = upload_server(&shop).await;
    for (lines, begun) in [
        // A client that waits to be asked for its gigabyte is not asked.
        (vec!["Content-Length: 1073741824", "Expect: 100-continue"], &b""[..]),
        // One that does not wait gets the answer before it has sent it.
        (vec!["Content-Length: 1073741824"], &[0; 1000][..]),
        (vec!["Transfer-Encoding: chunked"], b"5\r\nhello\r\n"),
        (vec!["Content-Length: 1073741824", "Authorization: L402 x"], b""),
    ] {
        let mut socket = server.open("POST /", &lines).await;
        socket.write_all(begun).await.unwrap();
        let answer = read_head(&mut socket).await;
        let status = if lines.len() == 2 && lines[1].starts_with("Auth") { 401 } else { 402 };
        assert_eq!(answer.status, status, "{lines:?}");
    }
    assert_eq!(calls.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_paid_body_is_read_by_the_handler_alone() {
    let shop = Shop::new();
    let (server, calls) = upload_server(&shop).await;
    let paid = shop.pay(&server.send("POST /", &["Content-Length: 0"]).await);
    let body = vec![b'x'; 3 << 20];
    let length = format!("Content-Length: {}", body.len());
    let mut socket = server.open("POST /", &[&length, "Expect: 100-continue", &paid.line()]).await;
    assert_eq!(read_head(&mut socket).await.status, 100, "the handler asks for it");
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    socket.write_all(&body).await.unwrap();
    let mut answer = Vec::new();
    within(socket.read_to_end(&mut answer)).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200") && answer.ends_with(b"3145728"));

    // In chunks, slowly.
    let mut socket = server.open("POST /", &["Transfer-Encoding: chunked", &paid.line()]).await;
    for chunk in ["5\r\nhello\r\n", "1\r\n!\r\n", "0\r\n\r\n"] {
        socket.write_all(chunk.as_bytes()).await.unwrap();
        tokio::task::yield_now().await;
    }
    let mut answer = Vec::new();
    within(socket.read_to_end(&mut answer)).await.unwrap();
    assert!(answer.ends_with(b"\r\n\r\n6"), "{}", String::from_utf8_lossy(&answer));
    assert_eq!(used(&shop, &paid).await, 2);
}
