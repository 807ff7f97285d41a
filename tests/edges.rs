//! What stands around a gate on a real server: odd paths, forwarding headers,
//! preflights, CORS, compression, timeouts, buffers, shutdown, new offers.

#[path = "support/untouchable.rs"]
mod untouchable;
#[path = "support/wire.rs"]
mod wire;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::error_handling::HandleErrorLayer;
use axum::extract::Request;
use axum::http::{Method, StatusCode};
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use axum::routing::{any, get};
use l402::{Access, Gate, GateBuilder, Grant, HOUR, L402Layer, Offer, Paid, Price, Refusal, SettleLayer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::{Notify, oneshot};
use tower::{BoxError, Layer as _, ServiceBuilder, ServiceExt as _, service_fn};
use tower_http::compression::CompressionLayer;
use tower_http::cors::{Any, CorsLayer};
use tower_http::normalize_path::NormalizePathLayer;
use tower_http::timeout::TimeoutLayer;
use untouchable::Untouchable;
use wire::{Paid as Token, Shop, read_head, serve, within};

fn counted(shop: &Shop, name: &str) -> Gate {
    Gate::new(&shop.issuer, name, Offer::new(Price::sat(1), Access::uses(10).within(HOUR))).unwrap()
}

async fn used(shop: &Shop, token: &Token) -> u64 {
    shop.issuer.account(token.preimage.payment_hash()).await.unwrap().map_or(0, |account| account.used)
}

async fn open(shop: &Shop) -> usize {
    shop.issuer.open_reservations().await.unwrap().len()
}

/// A handler that counts its calls.
#[derive(Clone, Default)]
struct Calls(Arc<AtomicUsize>);

impl Calls {
    fn count(&self) -> &'static str {
        self.0.fetch_add(1, Ordering::SeqCst);
        "served"
    }

    fn get(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

/// Paths that a proxy, a file system or a careless comparison takes for
/// `/forecast` or `/items/7`, and how they are answered unpaid.
const PATHS: [(&str, u16); 22] = [
    ("/forecast", 402),
    ("/forecast?free=1", 402),
    ("/forecast?", 402),
    ("http://localhost/forecast", 402),
    ("http://elsewhere.example/forecast", 402),
    ("/items/7", 402),
    ("/items/%37", 402),
    ("/items/..", 402),
    ("/items/%2e%2e", 402),
    ("/items/%2Fforecast", 402),
    ("/items/7;free", 402),
    ("//forecast", 404),
    ("/forecast/", 404),
    ("/forecast//", 404),
    ("/Forecast", 404),
    ("/%66orecast", 404),
    ("/./forecast", 404),
    ("/%2e/forecast", 404),
    ("/free/../forecast", 404),
    ("/forecast%00", 404),
    ("/forecast;free", 404),
    ("/forecast%2f", 404),
];

#[tokio::test]
async fn no_form_of_a_path_reaches_a_handler_unpaid() {
    let shop = Shop::new();
    let calls = Calls::default();
    let gate = counted(&shop, "svc");
    let counts = |calls: &Calls| {
        let calls = calls.clone();
        get(async move || calls.count())
    };
    let paid = |calls: &Calls| {
        let calls = calls.clone();
        get(async move |_: Paid| calls.count())
    };
    let layer = || L402Layer::new(gate.clone());
    let by_route = Router::new()
        .route("/forecast", counts(&calls).route_layer(layer()))
        .route("/items/{id}", counts(&calls).route_layer(layer()));
    let by_extractor = Router::new()
        .route("/forecast", paid(&calls))
        .route("/items/{id}", paid(&calls))
        .with_state(gate.clone());
    for (name, app) in [("layer", by_route), ("extractor", by_extractor)] {
        let server = serve(app).await;
        for (path, status) in PATHS {
            let answer = server.get(path, &[]).await;
            assert_eq!(answer.status, status, "{name} {path}");
        }
    }

    // A layer above the whole router asks a payment for whatever path, and one
    // that normalizes paths below it changes nothing of that.
    let whole = Router::new().route("/forecast", counts(&calls)).route("/items/{id}", counts(&calls));
    let normal = NormalizePathLayer::trim_trailing_slash().layer(whole);
    let server = serve(Router::new().fallback_service(layer().layer(normal))).await;
    for (path, _) in PATHS {
        assert_eq!(server.get(path, &[]).await.status, 402, "{path}");
    }
    assert_eq!(calls.get(), 0);

    // What is paid for is served where the router finds it.
    let token = shop.pay(&server.get("/forecast", &[]).await);
    for (path, status) in [("/forecast/", 200), ("/forecast", 200), ("/Forecast", 404)] {
        assert_eq!(server.get(path, &[&token.line()]).await.status, status, "{path}");
    }
    assert_eq!(calls.get(), 2);
}

/// What a client may write into its headers: a gate goes by none of it.
const CLAIMS: [&str; 10] = [
    "Host: admin.internal",
    "X-Forwarded-Host: admin.internal",
    "X-Forwarded-For: 127.0.0.1",
    "X-Real-IP: 127.0.0.1",
    "X-Forwarded-Proto: https",
    "Forwarded: for=127.0.0.1;host=admin.internal;proto=https",
    "X-Original-URL: /free",
    "X-Rewrite-URL: /free",
    "X-Forwarded-Prefix: /free",
    "X-HTTP-Method-Override: OPTIONS",
];

#[tokio::test]
async fn host_and_forwarding_headers_change_nothing_of_what_is_sold_or_admitted() {
    let shop = Shop::new();
    let calls = Calls::default();
    let counts = calls.clone();
    let app = Router::new().route(
        "/forecast",
        get(async move || counts.count()).route_layer(L402Layer::new(counted(&shop, "svc"))),
    );
    let server = serve(app.route("/free", get(async || "free"))).await;
    let plain = server.get("/forecast", &[]).await.json();
    let token = shop.pay(&server.get("/forecast", &[]).await);
    for (n, claim) in CLAIMS.iter().enumerate() {
        let answer = server.get("/forecast", &[claim]).await;
        assert_eq!(answer.status, 402, "{claim}");
        let body = answer.json();
        for what in ["service", "offer", "price_msat", "offers", "valid_until"] {
            assert_eq!(body["l402"][what], plain["l402"][what], "{claim}");
        }
        let admitted = server.get("/forecast", &[claim, &token.line()]).await;
        assert_eq!(admitted.status, 200, "{claim}");
        assert_eq!(calls.get(), n + 1, "{claim}");
        // Nor does a token bought under a claim open anything else.
        let bought = shop.pay(&answer);
        assert_eq!(bought.token.caveats().collect::<Vec<_>>(), token.token.caveats().collect::<Vec<_>>());
    }
}

/// The headers of a preflight, sent to services that look at no method.
#[tokio::test]
async fn a_preflight_gives_nothing_away_where_the_service_ignores_the_method() {
    let shop = Shop::new();
    let calls = Calls::default();
    let gate = counted(&shop, "svc");
    let (a, b, c) = (calls.clone(), calls.clone(), calls.clone());
    let ignorant = service_fn(move |_: Request| {
        a.count();
        async { Ok::<_, Infallible>(Response::new(Body::from("served"))) }
    });
    let app = Router::new()
        .route_service("/service", L402Layer::new(gate.clone()).layer(ignorant))
        .route("/any", any(async move || b.count()).layer(L402Layer::new(gate.clone())))
        .route("/paid", any(async move |_: Paid| c.count()))
        .with_state(gate);
    let server = serve(app).await;
    let token = shop.pay(&server.get("/any", &[]).await);
    let line = token.line();
    for path in ["/service", "/any", "/paid"] {
        for lines in [
            &["Origin: https://a.example", "Access-Control-Request-Method: GET"][..],
            &["Origin: null", "Access-Control-Request-Method: "],
            &[
                "Origin: a",
                "Access-Control-Request-Method: GET",
                "Access-Control-Request-Headers: authorization",
            ],
            &["Origin: a", "Access-Control-Request-Method: GET", "Content-Length: 5", "Expect: 100-continue"],
            &["Origin: a", "Access-Control-Request-Method: GET", &line],
        ] {
            let answer = server.send(&format!("OPTIONS {path}"), lines).await;
            assert_eq!((answer.status, answer.text()), (204, ""), "{path} {lines:?}");
            assert!(answer.all("www-authenticate").is_empty());
        }
        let answer = server.send(&format!("OPTIONS {path}"), &["Origin: https://a.example"]).await;
        assert_eq!(answer.status, 402, "no preflight: {path}");
    }
    assert_eq!((calls.get(), used(&shop, &token).await), (0, 0));
}

fn cors() -> CorsLayer {
    CorsLayer::new()
        .allow_origin(Any)
        .allow_methods([Method::GET])
        .allow_headers([axum::http::header::AUTHORIZATION])
        .expose_headers([axum::http::header::WWW_AUTHENTICATE])
}

#[tokio::test]
async fn a_cors_layer_works_above_the_gate_and_below_it_answers_preflights_alone() {
    let shop = Shop::new();
    let calls = Calls::default();
    let gate = counted(&shop, "svc");
    let handler = |calls: &Calls| {
        let calls = calls.clone();
        get(async move || calls.count())
    };
    let app = Router::new()
        .route("/above", handler(&calls).layer((cors(), L402Layer::new(gate.clone()))))
        .route("/below", handler(&calls).layer((L402Layer::new(gate.clone()).forward_preflight(), cors())));
    let server = serve(app).await;
    let token = shop.pay(&server.get("/above", &[]).await);
    let origin = "Origin: https://a.example";
    let preflight =
        [origin, "Access-Control-Request-Method: GET", "Access-Control-Request-Headers: authorization"];
    for (path, refusal_is_readable) in [("/above", true), ("/below", false)] {
        let answer = server.send(&format!("OPTIONS {path}"), &preflight).await;
        assert_eq!((answer.status, answer.text()), (200, ""), "{path}");
        assert_eq!(answer.header("access-control-allow-headers"), Some("authorization"), "{path}");
        assert_eq!(calls.get(), 0, "{path}");

        let refused = server.get(path, &[origin]).await;
        assert_eq!(refused.status, 402, "{path}");
        let allowed = refused.header("access-control-allow-origin");
        assert_eq!(allowed, refusal_is_readable.then_some("*"), "{path}");
        let exposed = refused.all("access-control-expose-headers").join(",").to_ascii_lowercase();
        assert!(exposed.contains("www-authenticate"), "{path}: {exposed}");

        let answer = server.get(path, &[origin, &token.line()]).await;
        assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, Some("*")), "{path}");
        assert_eq!(answer.all("cache-control"), ["private"], "{path}");
        assert!(answer.all("vary").contains(&"Authorization"), "{path}: {:?}", answer.all("vary"));
        calls.0.store(0, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn compression_works_above_and_below_the_gate() {
    let shop = Shop::new();
    let gate = counted(&shop, "svc");
    let long = || get(async || "a long text that is worth to be compressed. ".repeat(50));
    let app = Router::new()
        .route("/above", long().layer((CompressionLayer::new(), L402Layer::new(gate.clone()))))
        .route("/below", long().layer((L402Layer::new(gate.clone()), CompressionLayer::new())))
        .route("/cut", long().layer((L402Layer::new(gate.clone()).cut_at_expiry(), CompressionLayer::new())));
    let server = serve(app).await;
    let token = shop.pay(&server.get("/above", &[]).await);
    let accept = "Accept-Encoding: gzip";
    for (path, refusal) in [("/above", Some("gzip")), ("/below", None), ("/cut", None)] {
        let refused = server.get(path, &[accept]).await;
        assert_eq!((refused.status, refused.header("content-encoding")), (402, refusal), "{path}");
        assert_eq!(refused.header("cache-control"), Some("no-store"), "{path}");
        assert!(refused.challenge().invoice().starts_with("lnbcrt"), "{path}");

        let answer = server.get(path, &[accept, &token.line()]).await;
        assert_eq!((answer.status, answer.header("content-encoding")), (200, Some("gzip")), "{path}");
        assert_eq!(answer.all("cache-control"), ["private"], "{path}");
        let vary = answer.all("vary").join(",").to_ascii_lowercase();
        assert!(vary.contains("authorization") && vary.contains("accept-encoding"), "{path}: {vary}");
        assert!(answer.body.len() < 1000, "{path}: {}", answer.body.len());
        assert!(answer.body.ends_with(b"0\r\n\r\n"), "{path}: a whole body");
    }
    assert_eq!(used(&shop, &token).await, 3);
}

/// Lets this much time go by at once.
async fn pass_time(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

/// A timeout above the gate drops the request, as a client does that leaves; one
/// below answers it, and its status says whether it is charged.
#[tokio::test]
async fn a_timeout_gives_a_use_back_unless_it_answers_below_the_gate_with_4xx() {
    let (timeout, busy) = (StatusCode::REQUEST_TIMEOUT, StatusCode::SERVICE_UNAVAILABLE);
    let (ten, once) = (Access::uses(10), Access::once());
    for (place, status, access, spent) in [
        ("above", timeout, ten, 0),
        ("above", busy, ten, 0),
        ("above", busy, once, 1),
        ("below", timeout, ten, 1),
        ("below", busy, ten, 0),
        ("below", busy, once, 0),
        ("around paid", busy, ten, 1),
        ("above settle", busy, ten, 0),
        ("below settle", busy, ten, 0),
        ("below settle", timeout, ten, 1),
    ] {
        let shop = Shop::new();
        let gate = Gate::new(&shop.issuer, "svc", Offer::new(Price::sat(1), access)).unwrap();
        let begun = Arc::new(Notify::new());
        let (begins, extracts) = (begun.clone(), begun.clone());
        let hangs = get(async move || {
            begins.notify_one();
            std::future::pending::<()>().await;
        });
        let paid = get(async move |_paid: Paid| {
            extracts.notify_one();
            std::future::pending::<()>().await;
        });
        let limit = TimeoutLayer::with_status_code(status, Duration::from_secs(5));
        let layer = L402Layer::new(gate.clone());
        let settle = SettleLayer::new();
        let handler = match place {
            "above" => hangs.layer((limit, layer)),
            "below" => hangs.layer((layer, limit)),
            "around paid" => paid.layer(limit),
            "above settle" => paid.layer((limit, settle)),
            _ => paid.layer((settle, limit)),
        };
        let server = serve(Router::new().route("/", handler).with_state(gate)).await;
        let token = shop.pay(&server.get("/", &[]).await);
        let mut socket = server.open("GET /", &[&token.line()]).await;
        within(begun.notified()).await;
        assert_eq!(used(&shop, &token).await, 1, "{place} {status}");
        pass_time(Duration::from_secs(6)).await;
        assert_eq!(read_head(&mut socket).await.status, status.as_u16(), "{place}");
        assert_eq!((used(&shop, &token).await, open(&shop).await), (spent, 0), "{place} {status}");
    }
}

#[tokio::test]
async fn a_buffer_works_above_and_below_the_gate() {
    let shop = Shop::new();
    let gate = counted(&shop, "svc");
    let failed = HandleErrorLayer::new(async |_: BoxError| StatusCode::INTERNAL_SERVER_ERROR);
    let handler = || get(async |grant: Grant| format!("{:?}", grant.remaining()));
    let buffered = || ServiceBuilder::new().layer(failed.clone()).buffer::<Request>(4);
    let app = Router::new()
        .route("/above", handler().layer((buffered(), L402Layer::new(gate.clone()))))
        .route("/below", handler().layer((L402Layer::new(gate), buffered())));
    let server = serve(app).await;
    let token = shop.pay(&server.get("/above", &[]).await);
    for (path, left) in [("/above", "Some(9)"), ("/below", "Some(8)")] {
        assert_eq!(server.get(path, &[]).await.status, 402, "{path}");
        let answer = server.get(path, &[&token.line()]).await;
        assert_eq!((answer.status, answer.text(), open(&shop).await), (200, left, 0), "{path}");
    }
}

/// Asks a second time where the first answer is a server error.
async fn retry(request: Request, next: Next) -> Response {
    let again = |request: &Request| {
        let mut again = Request::new(Body::empty());
        again.uri_mut().clone_from(request.uri());
        again.headers_mut().clone_from(request.headers());
        again.extensions_mut().clone_from(request.extensions());
        again
    };
    let second = again(&request);
    let response = next.clone().run(request).await;
    if response.status().is_server_error() { next.run(second).await } else { response }
}

#[tokio::test]
async fn each_try_of_a_retry_above_is_settled_by_its_own_response() {
    for settles in [false, true] {
        let shop = Shop::new();
        let gate = counted(&shop, "svc");
        let tries = Calls::default();
        let fails_once = async move || {
            tries.count();
            if tries.get() % 2 == 1 { StatusCode::BAD_GATEWAY } else { StatusCode::OK }
        };
        let retry = from_fn(retry);
        let handler = if settles {
            get(async move |_: Paid| fails_once().await).layer((retry, SettleLayer::new()))
        } else {
            get(fails_once).layer((retry, L402Layer::new(gate.clone())))
        };
        let server = serve(Router::new().route("/", handler).with_state(gate)).await;
        let token = shop.pay(&server.get("/", &[]).await);
        let answer = server.get("/", &[&token.line()]).await;
        assert_eq!((answer.status, used(&shop, &token).await, open(&shop).await), (200, 1, 0), "{settles}");
        let left = answer.header("ratelimit").unwrap();
        assert!(left.contains(";r=9;"), "{left}");
    }
}

#[tokio::test]
async fn a_shutdown_lets_paid_requests_end_and_settles_them() {
    let shop = Shop::new();
    let gate = counted(&shop, "svc");
    let (begun, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (begins, waits) = (begun.clone(), go_on.clone());
    let handler = get(async move |request: Request| {
        begins.notify_one();
        waits.notified().await;
        if request.uri().query().is_some() { StatusCode::BAD_GATEWAY } else { StatusCode::OK }
    });
    let app = Router::new().route("/", handler.route_layer(L402Layer::new(gate.clone())));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (shut_down, is_shut) = oneshot::channel::<()>();
    let graceful = axum::serve(listener, app).with_graceful_shutdown(async { is_shut.await.unwrap() });
    let server = tokio::spawn(async move { graceful.await.unwrap() });

    let mut sockets = Vec::new();
    for path in ["/", "/?fails"] {
        let credential = gate.test_credential();
        let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: a\r\nAuthorization: {}\r\n\r\n",
            credential.to_str().unwrap()
        );
        socket.write_all(head.as_bytes()).await.unwrap();
        within(begun.notified()).await;
        sockets.push(socket);
    }
    assert_eq!(open(&shop).await, 2);
    shut_down.send(()).unwrap();
    // It waits for both, and takes nobody new.
    while tokio::net::TcpStream::connect(address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    assert!(!server.is_finished());
    go_on.notify_waiters();
    for (socket, (status, left)) in sockets.iter_mut().zip([(200, Some("r=9")), (502, None)]) {
        let answer = read_head(socket).await;
        assert_eq!(answer.status, status);
        let field = answer.header("ratelimit").map(|field| field.split(';').nth(1).unwrap());
        assert_eq!(field, left);
    }
    within(server).await.unwrap();
    assert_eq!(open(&shop).await, 0);
}

/// Two offers at 10 and 20 sat, of ids of their own.
fn offers() -> (Offer, Offer) {
    let offer = |sat| Offer::new(Price::sat(sat), Access::uses(10));
    (offer(10), offer(20).with_id("dear"))
}

#[tokio::test]
async fn a_gate_set_while_the_server_runs_sells_its_own_offers_and_honours_those_that_stay() {
    let shop = Shop::new();
    let (old, dear) = offers();
    let builder: GateBuilder = Gate::builder(&shop.issuer, "svc", old.clone());
    let layer = L402Layer::new(builder.clone().build().unwrap());
    let (begun, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (begins, waits, is_slow) = (begun.clone(), go_on.clone(), Arc::new(AtomicBool::new(false)));
    let slow = is_slow.clone();
    let handler = get(async move |grant: Grant| {
        if slow.load(Ordering::SeqCst) {
            begins.notify_one();
            waits.notified().await;
        }
        format!("{} {:?}", grant.offer().unwrap(), grant.remaining())
    });
    let app = Router::new()
        .route("/a", handler.clone().route_layer(layer.clone()))
        .route("/b", handler.route_layer(layer.clone()));
    let server = serve(app).await;
    let old_token = shop.pay(&server.get("/a", &[]).await);
    assert_eq!(server.get("/a", &[&old_token.line()]).await.text(), "default Some(9)");

    // A request under way ends at the gate where it began.
    is_slow.store(true, Ordering::SeqCst);
    let line = old_token.line();
    let mut socket = server.open("GET /a", &[&line]).await;
    within(begun.notified()).await;
    is_slow.store(false, Ordering::SeqCst);
    layer.set_gate(builder.clone().with_offer(dear.clone()).honour_offer(old).build().unwrap());
    go_on.notify_waiters();
    let mut answer = String::new();
    within(socket.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.contains(r#"ratelimit: "svc";r=8"#) && answer.ends_with("default Some(8)"), "{answer}");

    for path in ["/a", "/b"] {
        let answer = server.get(path, &[]).await;
        let terms = &answer.json()["l402"];
        assert_eq!((terms["offer"].as_str(), terms["price_msat"].as_u64()), (Some("dear"), Some(20_000)));
        let token = shop.pay(&answer);
        assert_eq!(server.get(path, &[&token.line()]).await.text(), "dear Some(9)", "{path}");
    }
    assert_eq!(server.get("/b", &[&old_token.line()]).await.text(), "default Some(7)");

    // Without the old offer, its tokens buy nothing more.
    layer.set_gate(builder.with_offer(dear).build().unwrap());
    let refused = server.get("/a", &[&old_token.line()]).await;
    assert_eq!((refused.status, &*refused.code()), (402, "wrong_offer"));
    assert_eq!((used(&shop, &old_token).await, open(&shop).await), (3, 0));
}

/// An offer keeps its terms for as long as its service has gates: nobody buys
/// at one price what another gate sells at a higher one.
#[tokio::test]
async fn an_offer_on_other_terms_needs_an_id_of_its_own() {
    let shop = Shop::new();
    let (old, _) = offers();
    let builder = Gate::builder(&shop.issuer, "svc", old);
    let gate = builder.clone().build().unwrap();
    let dearer = Offer::new(Price::sat(20), Access::uses(10));
    let error = builder.clone().with_offer(dearer.clone()).build().unwrap_err();
    assert!(error.to_string().contains("with_id"), "{error}");
    let new = builder.with_offer(dearer.with_id("new")).build().unwrap();
    assert!(format!("{gate:?}") != format!("{new:?}"));
}

/// A gate that the state gives anew for each request: how a `Paid` gets another.
#[derive(Clone)]
struct Live(Arc<arc_swap::ArcSwap<Gate>>);

struct Current(Gate);

impl AsRef<Gate> for Current {
    fn as_ref(&self) -> &Gate {
        &self.0
    }
}

impl axum::extract::FromRef<Live> for Current {
    fn from_ref(live: &Live) -> Self {
        Self(Gate::clone(&live.0.load()))
    }
}

#[tokio::test]
async fn the_state_may_give_paid_another_gate_while_the_server_runs() {
    let shop = Shop::new();
    let (old, dear) = offers();
    let builder = Gate::builder(&shop.issuer, "svc", old.clone());
    let live = Live(Arc::new(arc_swap::ArcSwap::from_pointee(builder.clone().build().unwrap())));
    let handler = async |paid: Paid<Current>| paid.grant().offer().unwrap().to_owned();
    let server = serve(Router::new().route("/", get(handler)).with_state(live.clone())).await;
    let token = shop.pay(&server.get("/", &[]).await);
    live.0.store(Arc::new(builder.with_offer(dear).honour_offer(old).build().unwrap()));
    assert_eq!(server.get("/", &[]).await.json()["l402"]["offer"], "dear");
    assert_eq!(server.get("/", &[&token.line()]).await.text(), "default");
}

#[tokio::test]
async fn a_layer_reads_no_body() {
    let shop = Shop::new();
    let gate = counted(&shop, "svc");
    let inner = service_fn(async |request: Request| {
        // The inner service gets it as it came.
        drop(request.into_body());
        Ok::<_, Infallible>(Response::new(Body::empty()))
    });
    let request = || Request::post("/").header("expect", "100-continue");
    for (request, status) in [
        (request(), 402),
        (request().header("content-type", "application/grpc"), 200),
        (request().header("authorization", "L402 x"), 401),
        (request().header("authorization", gate.test_credential()), 200),
    ] {
        let service = L402Layer::new(gate.clone()).layer(inner);
        let response = service.oneshot(request.body(Body::new(Untouchable)).unwrap()).await.unwrap();
        assert_eq!(response.status(), status, "{:?}", response.extensions().get::<Refusal>());
    }
}
