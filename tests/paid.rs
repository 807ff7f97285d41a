//! `Paid`: a handler that is gated by an extractor alone, and what is charged
//! for it with and without a `SettleLayer` above.

#[path = "support/untouchable.rs"]
mod untouchable;
#[path = "support/wire.rs"]
mod wire;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::{FromRef, FromRequestParts, Path, Request, State};
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderValue, StatusCode, Uri};
use axum::middleware::from_extractor_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use bytes::Bytes;
use l402::{
    Access, ChargeOn, Gate, Grant, HOUR, L402Layer, Offer, Paid, PaymentHash, Preimage, Price, Refusal,
    SettleLayer,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Notify;
use tower::{Layer as _, ServiceExt as _, service_fn};
use untouchable::Untouchable;
use wire::{Answer, Paid as Token, Shop, read_head, serve, within};

fn counted(shop: &Shop, name: &str) -> Gate {
    Gate::new(&shop.issuer, name, Offer::new(Price::sat(1), Access::uses(10).within(HOUR))).unwrap()
}

async fn used(shop: &Shop, token: &Token) -> u64 {
    shop.issuer.account(token.preimage.payment_hash()).await.unwrap().map_or(0, |account| account.used)
}

async fn open(shop: &Shop) -> usize {
    shop.issuer.open_reservations().await.unwrap().len()
}

/// A credential as if it had been paid for.
fn credential(gate: &Gate) -> String {
    format!("Authorization: {}", gate.test_credential().to_str().unwrap())
}

/// What differs between two answers that mean the same: the invoice and token.
fn shape(answer: &Answer) -> (u16, Vec<(String, String)>, String) {
    let fresh = ["content-length", "date", "www-authenticate"];
    let headers = answer.headers.iter().filter(|(name, _)| !fresh.contains(&&**name)).cloned();
    let challenges = answer
        .all("www-authenticate")
        .into_iter()
        .map(|value| ("www-authenticate".to_owned(), value.split('=').next().unwrap().to_owned()));
    let mut headers: Vec<_> = headers.chain(challenges).collect();
    headers.sort();
    let body = serde_json::from_slice(&answer.body).map_or_else(
        |_| answer.text().to_owned(),
        |mut body: serde_json::Value| {
            if let Some(terms) = body.get_mut("l402").and_then(|terms| terms.as_object_mut()) {
                for fresh in ["invoice", "payment_hash", "token"] {
                    assert!(terms.remove(fresh).is_some(), "{fresh}");
                }
            }
            body.to_string()
        },
    );
    (answer.status, headers, body)
}

#[tokio::test]
async fn it_answers_what_the_layer_answers() {
    let shop = Shop::new();
    let gate = counted(&shop, "svc");
    let other = credential(&counted(&shop, "other"));
    let once =
        Gate::builder(&shop.issuer, "once", Offer::new(Price::sat(1), Access::once())).build().unwrap();
    let calls = Arc::new(AtomicUsize::new(0));
    let count = calls.clone();
    let handler = move |_: Paid| async move { count.fetch_add(1, Ordering::SeqCst).to_string() };
    let by_layer =
        serve(Router::new().route("/", any(|| async {}).layer(L402Layer::new(gate.clone())))).await;
    let by_extractor = serve(Router::new().route("/", any(handler)).with_state(gate.clone())).await;

    let good = credential(&gate);
    let other_preimage =
        format!("{}{}", &good[..good.len() - 2], if good.ends_with("00") { "11" } else { "00" });
    let grpc = ["Content-Type: application/grpc", "Content-Length: 0", "TE: trailers"];
    let preflight = ["Origin: https://a.example", "Access-Control-Request-Method: GET"];
    for (request, lines, status) in [
        ("GET /", vec![], 402),
        ("HEAD /", vec![], 402),
        ("OPTIONS /", vec![], 402),
        ("PROPFIND /", vec![], 402),
        ("GET /", vec!["Origin: https://a.example"], 402),
        ("GET /", vec!["Authorization: L402 nonsense"], 401),
        ("GET /", vec!["Authorization: Bearer x"], 402),
        ("GET /", vec![&*other], 402),
        ("GET /", vec![&*other_preimage], 401),
        ("GET /", vec![&*good, &*other], 401),
        ("POST /", grpc.to_vec(), 200),
        ("OPTIONS /", preflight.to_vec(), 204),
        ("OPTIONS /", [&preflight[..], &[&*good]].concat(), 204),
    ] {
        let [layer, extractor] =
            [by_layer.send(request, &lines).await, by_extractor.send(request, &lines).await];
        assert_eq!(extractor.status, status, "{request} {lines:?}");
        assert_eq!(shape(&extractor), shape(&layer), "{request} {lines:?}");
    }
    assert_eq!(calls.load(Ordering::SeqCst), 0);

    // Used up.
    let server = serve(Router::new().route("/", get(|_: Paid| async {})).with_state(once.clone())).await;
    let spent = credential(&once);
    assert_eq!(server.get("/", &[&spent]).await.status, 200);
    assert_eq!(server.get("/", &[&spent]).await.code(), "used_up");
}

/// The refusal is in the extensions, as it is behind a layer, and a handler may
/// see it in place of being skipped.
#[tokio::test]
async fn a_handler_may_look_at_the_refusal_itself() {
    let shop = Shop::new();
    let handler = |paid: Result<Paid, Response>| async move {
        match paid {
            Ok(paid) => paid.settle("all of it"),
            Err(refused) => {
                let code = refused.extensions().get::<Refusal>().unwrap().code();
                (StatusCode::OK, format!("a summary: {code}")).into_response()
            }
        }
    };
    let gate = counted(&shop, "svc");
    let server = serve(Router::new().route("/", get(handler)).with_state(gate.clone())).await;
    assert_eq!(server.get("/", &[]).await.text(), "a summary: missing_credential");
    assert_eq!(server.get("/", &[&credential(&gate)]).await.text(), "all of it");
}

#[derive(Clone)]
struct Forecast(Gate);

impl AsRef<Gate> for Forecast {
    fn as_ref(&self) -> &Gate {
        &self.0
    }
}

#[derive(Clone)]
struct Archive(Gate);

impl AsRef<Gate> for Archive {
    fn as_ref(&self) -> &Gate {
        &self.0
    }
}

type Db = Arc<AtomicUsize>;

#[derive(Clone, FromRef)]
struct App {
    forecast: Forecast,
    archive: Archive,
    db: Db,
}

impl App {
    fn new(shop: &Shop) -> Self {
        let gate = |name| counted(shop, name);
        Self { forecast: Forecast(gate("forecast")), archive: Archive(gate("archive")), db: Db::default() }
    }
}

/// Situation 5 of the crate's design: two gates in one state, a third that is
/// all of it; a handler that settles itself.
#[tokio::test]
async fn gates_are_parts_of_the_state() {
    async fn forecast(paid: Paid<Forecast>) -> String {
        format!("{:?} left", paid.grant().remaining())
    }
    async fn doc(State(db): State<Db>, Path(id): Path<u64>, paid: Paid<Archive>) -> Response {
        let renderings = db.fetch_add(1, Ordering::SeqCst);
        let status = if id == 500 { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::OK };
        paid.settle((status, format!("document {id}, the {renderings}th")))
    }
    async fn only(paid: Paid) -> String {
        format!("one gate, {}", paid.grant().service())
    }

    let shop = Shop::new();
    let app = App::new(&shop);
    let (of_forecast, of_archive) = (app.forecast.0.clone(), app.archive.0.clone());
    let single = counted(&shop, "only");
    let router = Router::new()
        .route("/forecast", get(forecast))
        .route("/docs/{id}", get(doc))
        .with_state(app)
        .merge(Router::new().route("/only", get(only)).with_state(single.clone()));
    let server = serve(router).await;

    let (forecast, archive, only) = (credential(&of_forecast), credential(&of_archive), credential(&single));
    assert_eq!(server.get("/forecast", &[&forecast]).await.text(), "Some(9) left");
    let answer = server.get("/docs/7", &[&archive]).await;
    assert_eq!(answer.text(), "document 7, the 0th");
    assert_eq!(answer.header("ratelimit"), Some(r#""archive";r=9;t=3600"#));
    assert_eq!(
        (answer.header("cache-control"), answer.header("vary")),
        (Some("private"), Some("Authorization"))
    );
    let failed = server.get("/docs/500", &[&archive]).await;
    assert_eq!((failed.status, failed.header("ratelimit")), (500, None));
    assert_eq!(server.get("/docs/8", &[&archive]).await.header("ratelimit"), Some(r#""archive";r=8;t=3600"#));
    assert_eq!(server.get("/only", &[&only]).await.text(), "one gate, only");
    for (path, wrong) in [("/forecast", &archive), ("/docs/7", &forecast), ("/only", &archive)] {
        assert_eq!(server.get(path, &[wrong]).await.code(), "wrong_service", "{path}");
    }
    // Who names no document is not asked to pay for it.
    assert_eq!(server.get("/docs/none", &[]).await.status, 400);
    assert_eq!(server.get("/docs/none", &[&archive]).await.status, 400);
    assert_eq!(server.get("/docs/9", &[&archive]).await.header("ratelimit"), Some(r#""archive";r=7;t=3600"#));
}

#[tokio::test]
async fn it_gates_handlers_wherever_axum_puts_them() {
    let shop = Shop::new();
    let gate = counted(&shop, "svc");
    let handler = |_: Paid| async { "served" };
    let inner = Router::new().route("/item/{id}", get(handler).post(handler).delete(|| async { "free" }));
    let app = Router::new()
        .nest("/shop/v1", Router::new().nest("/{shelf}", inner))
        .nest_service("/service", get(handler).with_state(gate.clone()))
        .route("/any", any(handler))
        .route("/files/{*rest}", get(handler))
        .route("/methods", get(|| async { "free" }).fallback(handler))
        .fallback(handler)
        .with_state(gate.clone());
    let server = serve(app).await;
    let token = credential(&gate);
    let mut uses = 10;
    for (request, paid) in [
        ("GET /shop/v1/a/item/7", true),
        ("POST /shop/v1/a/item/7", true),
        ("DELETE /shop/v1/a/item/7", false),
        ("HEAD /shop/v1/a/item/7", true),
        ("GET /service", true),
        ("PROPFIND /any", true),
        ("GET /files/a/b/c", true),
        ("GET /methods", false),
        ("PUT /methods", true),
        ("GET /nowhere", true),
    ] {
        let unpaid = server.send(request, &["Content-Length: 0"]).await;
        assert_eq!(unpaid.status, if paid { 402 } else { 200 }, "{request}");
        let answer = server.send(request, &["Content-Length: 0", &token]).await;
        assert_eq!(answer.status, 200, "{request}");
        let text = if request.starts_with("HEAD") {
            ""
        } else if paid {
            "served"
        } else {
            "free"
        };
        assert_eq!(answer.text(), text, "{request}");
        uses -= u64::from(paid);
    }
    assert_eq!(server.get("/shop/v1/a/none", &[]).await.status, 402, "the fallback");
    assert_eq!(server.send("PUT /shop/v1/a/item/7", &["Content-Length: 0"]).await.status, 405, "free");
    assert_eq!(uses, 2);
    let left = serve(
        Router::new()
            .route("/", get(async |paid: Paid| paid.grant().remaining().unwrap().to_string()))
            .with_state(gate),
    )
    .await;
    assert_eq!(left.get("/", &[&token]).await.text(), "1", "of 10, 8 by the routes and one by this");
}

/// The status that a request asks its handler for.
fn asked(uri: &Uri) -> StatusCode {
    uri.query().unwrap_or("200").parse::<u16>().unwrap().try_into().unwrap()
}

/// An extractor that rejects what does not ask for a 200.
struct Only200;

impl<S: Sync> FromRequestParts<S> for Only200 {
    type Rejection = StatusCode;

    async fn from_request_parts(head: &mut Parts, _: &S) -> Result<Self, StatusCode> {
        let status = asked(&head.uri);
        if status == 200 { Ok(Self) } else { Err(status) }
    }
}

/// Handlers that end as the query says.
fn endings() -> Router<Gate> {
    Router::new()
        .route("/held", get(async |uri: Uri, _paid: Paid| asked(&uri)))
        .route("/settled", get(async |uri: Uri, paid: Paid| paid.settle(asked(&uri))))
        // Settled by one response, and answered with another.
        .route(
            "/settled-else",
            get(async |uri: Uri, paid: Paid| {
                drop(paid.settle(StatusCode::OK));
                asked(&uri)
            }),
        )
        .route("/later", get(async |_: Paid, _: Only200| ()))
        .route("/earlier", get(async |_: Only200, _: Paid| ()))
}

#[tokio::test]
async fn what_is_charged_without_and_with_a_layer_that_settles() {
    // The status, the uses that are spent, and whether the response says that it was paid.
    for (path, without, with) in [
        ("/held?200", (200, 1, false), (200, 1, true)),
        ("/held?404", (404, 1, false), (404, 1, true)),
        ("/held?503", (503, 1, false), (503, 0, true)),
        ("/settled?200", (200, 1, true), (200, 1, true)),
        ("/settled?404", (404, 1, true), (404, 1, true)),
        ("/settled?503", (503, 0, true), (503, 0, true)),
        ("/settled-else?500", (500, 1, false), (500, 1, false)),
        ("/later?422", (422, 1, false), (422, 1, true)),
        ("/later?500", (500, 1, false), (500, 0, true)),
        ("/earlier?422", (422, 0, false), (422, 0, false)),
        ("/earlier?500", (500, 0, false), (500, 0, false)),
    ] {
        for (layered, expected) in [(false, without), (true, with)] {
            let shop = Shop::new();
            let app = if layered { endings().layer(SettleLayer::new()) } else { endings() };
            let server = serve(app.with_state(counted(&shop, "svc"))).await;
            let token = shop.pay(&server.get("/held", &[]).await);
            let answer = server.get(path, &[&token.line()]).await;
            let is_marked = answer.header("cache-control") == Some("private");
            let found = (answer.status, used(&shop, &token).await, is_marked);
            assert_eq!(found, expected, "{path}, layered: {layered}");
            let left = (found.1 == 1 && is_marked).then_some(r#""svc";r=9;t=3900"#);
            assert_eq!(answer.header("ratelimit"), left, "{path}, layered: {layered}");
            assert_eq!(open(&shop).await, 0, "{path}, layered: {layered}");
        }
    }
}

#[tokio::test]
async fn the_layer_charges_as_the_gate_says() {
    let teapot = || ChargeOn::response(|head| head.status == StatusCode::IM_A_TEAPOT);
    for (charge_on, path, spent) in [
        (ChargeOn::Admission, "/held?503", 1),
        (ChargeOn::Admission, "/settled?503", 1),
        (teapot(), "/held?200", 0),
        (teapot(), "/held?418", 1),
        (teapot(), "/later?418", 1),
    ] {
        let shop = Shop::new();
        let offer = Offer::new(Price::sat(1), Access::uses(10));
        let gate = Gate::builder(&shop.issuer, "svc", offer).with_charge_on(charge_on).build().unwrap();
        let server = serve(endings().layer(SettleLayer::new()).with_state(gate)).await;
        let token = shop.pay(&server.get("/held", &[]).await);
        server.get(path, &[&token.line()]).await;
        assert_eq!((used(&shop, &token).await, open(&shop).await), (spent, 0), "{path}");
    }
}

#[tokio::test]
async fn what_cost_nothing_is_left_as_it_is() {
    let shop = Shop::new();
    let free = Gate::new(&shop.issuer, "free", Offer::new(Price::Free, Access::once())).unwrap();
    let routes = Router::new()
        .route("/gated", get(async |paid: Paid| paid.grant().is_paid().to_string()))
        .route("/settled", get(async |paid: Paid| paid.settle("false")))
        .route("/open", get(async || "false"));
    let server = serve(routes.layer(SettleLayer::new()).with_state(free)).await;
    for path in ["/gated", "/settled", "/open"] {
        let answer = server.get(path, &[]).await;
        assert_eq!((answer.status, answer.text(), answer.header("cache-control")), (200, "false", None));
    }
}

/// A service that ends without a response.
#[derive(Clone, Copy)]
enum Ends {
    Panics,
    PanicsLater,
    Fails,
    Left,
}

#[tokio::test]
async fn a_request_without_a_response_is_given_back_by_the_layer_alone() {
    for ends in [Ends::Panics, Ends::PanicsLater, Ends::Fails, Ends::Left] {
        for (access, layered, spent) in [
            (Access::uses(10), true, 0),
            (Access::uses(10), false, 1),
            // Who leaves after a single use had it.
            (Access::once(), true, u64::from(matches!(ends, Ends::Left))),
        ] {
            let shop = Shop::new();
            let gate = Gate::new(&shop.issuer, "svc", Offer::new(Price::sat(1), access)).unwrap();
            let token = gate.test_credential();
            let service = service_fn(move |request: Request| {
                let gate = gate.clone();
                async move {
                    let (mut head, _) = request.into_parts();
                    let paid = <Paid>::from_request_parts(&mut head, &gate).await.unwrap();
                    match ends {
                        Ends::Panics => panic!("on purpose"),
                        Ends::PanicsLater => {
                            tokio::task::yield_now().await;
                            panic!("on purpose")
                        }
                        Ends::Fails => Err(paid.grant().service().to_owned()),
                        Ends::Left => std::future::pending::<Result<Response, String>>().await,
                    }
                }
            });
            let request =
                Request::get("/").header("authorization", token.clone()).body(Body::empty()).unwrap();
            let task = if layered {
                tokio::spawn(SettleLayer::new().layer(service).oneshot(request))
            } else {
                tokio::spawn(service.oneshot(request))
            };
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
            task.abort();
            match task.await {
                Ok(answer) => assert_eq!(answer.unwrap_err(), "svc"),
                Err(ended) => assert_eq!(ended.is_panic(), !matches!(ends, Ends::Left)),
            }
            let hash = hash_of(&token);
            let account = shop.issuer.account(hash).await.unwrap();
            assert_eq!((account.unwrap().used, open(&shop).await), (spent, 0));
        }
    }
}

/// The payment hash of a credential.
fn hash_of(credential: &HeaderValue) -> PaymentHash {
    let (_, preimage) = credential.to_str().unwrap().rsplit_once(':').unwrap();
    Preimage::from_hex(preimage).unwrap().payment_hash()
}

#[tokio::test]
async fn a_client_that_leaves_is_given_its_use_back_by_the_layer() {
    for (layered, spent) in [(true, 0), (false, 1)] {
        let shop = Shop::new();
        let gate = counted(&shop, "svc");
        let (begun, ended) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (begins, ends) = (begun.clone(), NotifyOnDrop(ended.clone()));
        let ends = Arc::new(Mutex::new(Some(ends)));
        let handler = move |paid: Paid| async move {
            let _ends = ends.lock().unwrap().take();
            begins.notify_one();
            std::future::pending::<()>().await;
            drop(paid);
        };
        let app = Router::new().route("/", get(handler));
        let app = if layered { app.layer(SettleLayer::new()) } else { app };
        let server = serve(app.with_state(gate)).await;
        let token = shop.pay(&server.get("/", &[]).await);
        let socket = server.open("GET /", &[&token.line()]).await;
        within(begun.notified()).await;
        assert_eq!(used(&shop, &token).await, 1);
        drop(socket);
        within(ended.notified()).await;
        while open(&shop).await > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(used(&shop, &token).await, spent, "layered: {layered}");
    }
}

struct NotifyOnDrop(Arc<Notify>);

impl Drop for NotifyOnDrop {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

#[tokio::test]
async fn a_second_paid_takes_no_second_use() {
    for layered in [false, true] {
        let shop = Shop::new();
        let app = App::new(&shop);
        let bundle = Offer::new(Price::sat(1), Access::uses(10)).also_opens(&["archive"]);
        let forecast = Gate::new(&shop.issuer, "bundle", bundle).unwrap();
        let app = App { forecast: Forecast(forecast), ..app };
        let routes = Router::new()
            .route("/same", get(async |a: Paid<Forecast>, b: Paid<Forecast>| left(&a) + &left(&b)))
            .route("/settles-one", get(async |a: Paid<Forecast>, b: Paid<Forecast>| b.settle(left(&a))))
            .route(
                "/settles-both",
                get(async |a: Paid<Forecast>, b: Paid<Forecast>| a.settle(b.settle("both"))),
            )
            .route("/bundle", get(async |a: Paid<Forecast>, b: Paid<Archive>| left(&a) + b.grant().service()))
            .route("/grant", get(async |a: Paid<Forecast>, b: Grant| left(&a) + b.service()))
            .route("/nested", get(async |_: Paid<Archive>, _: Paid<Forecast>| "unreachable"));
        let layers =
            if layered { routes.layer(SettleLayer::new()).layer(SettleLayer::new()) } else { routes };
        let (bundle, archive) = (app.forecast.0.clone(), app.archive.0.clone());
        let server = serve(layers.with_state(app)).await;
        let token = shop.pay(&server.get("/same", &[]).await);
        for (uses, (path, text)) in [
            ("/same", "Some(9)Some(9)"),
            ("/settles-one", "Some(8)"),
            ("/settles-both", "both"),
            ("/bundle", "Some(6)archive"),
            ("/grant", "Some(5)bundle"),
        ]
        .into_iter()
        .enumerate()
        {
            let answer = server.get(path, &[&token.line()]).await;
            assert_eq!((answer.status, answer.text()), (200, text), "{path}");
            assert_eq!((used(&shop, &token).await, open(&shop).await), (uses as u64 + 1, 0), "{path}");
            if layered || path == "/settles-both" {
                let field = format!(r#""bundle";r={};t=2592300"#, 9 - uses);
                assert_eq!(answer.header("ratelimit"), Some(&*field), "{path}");
                assert_eq!(
                    (answer.all("cache-control"), answer.all("vary")),
                    (vec!["private"], vec!["Authorization"])
                );
            }
        }
        // A second gate that the token does not open: never a second invoice.
        let of_archive = archive.test_credential();
        let answer =
            server.get("/nested", &[&format!("Authorization: {}", of_archive.to_str().unwrap())]).await;
        assert_eq!(
            (answer.status, &*answer.code(), answer.all("www-authenticate").len()),
            (500, "nested_gate", 0)
        );
        let account = shop.issuer.account(hash_of(&of_archive)).await.unwrap().unwrap();
        assert_eq!((account.used, open(&shop).await), (u64::from(!layered), 0));
        drop(bundle);
    }
}

fn left<P>(paid: &Paid<P>) -> String {
    format!("{:?}", paid.grant().remaining())
}

#[tokio::test]
async fn behind_a_layer_it_takes_no_second_use() {
    for settles in [false, true] {
        let shop = Shop::new();
        let (gate, other) = (counted(&shop, "svc"), counted(&shop, "other"));
        let handler = |status: StatusCode| get(async move |paid: Paid| (status, left(&paid)));
        let routes = Router::new()
            .route("/", handler(StatusCode::OK))
            .route("/fails", handler(StatusCode::BAD_GATEWAY))
            .route_layer(L402Layer::new(gate.clone()))
            .route("/other", handler(StatusCode::OK).route_layer(L402Layer::new(other.clone())));
        let app = if settles { routes.layer(SettleLayer::new()) } else { routes };
        let server = serve(app.with_state(gate.clone())).await;
        let token = shop.pay(&server.get("/", &[]).await);
        for (path, status, text, spent) in
            [("/", 200, "Some(9)", 1), ("/fails", 502, "Some(8)", 1), ("/", 200, "Some(8)", 2)]
        {
            let answer = server.get(path, &[&token.line()]).await;
            assert_eq!((answer.status, answer.text(), answer.all("vary").len()), (status, text, 1), "{path}");
            assert_eq!((used(&shop, &token).await, open(&shop).await), (spent, 0), "{path}");
        }
        // The outer gate's token does not open the inner one: it is given back.
        let token = shop.pay(&server.get("/other", &[]).await);
        let answer = server.get("/other", &[&token.line()]).await;
        assert_eq!((answer.status, &*answer.code()), (500, "nested_gate"));
        assert_eq!((used(&shop, &token).await, open(&shop).await), (0, 0));
        assert_eq!(server.get("/other", &[&credential(&gate)]).await.code(), "wrong_service");
    }
}

type Kept = (Grant, Extensions, Option<Paid>);

/// What outlives the response: a clone of the grant, the request's extensions,
/// and the `Paid` itself.
#[tokio::test]
async fn what_a_handler_keeps_holds_no_use_back() {
    let shop = Shop::new();
    let kept: Arc<Mutex<Vec<Kept>>> = Arc::default();
    let keep = kept.clone();
    let handler = async move |uri: Uri, paid: Paid, request: Request| {
        let grant = paid.grant().clone();
        let extensions = request.into_parts().0.extensions;
        let mut kept = keep.lock().unwrap();
        if uri.query() == Some("200") {
            kept.push((grant, extensions, None));
            return paid.settle(asked(&uri));
        }
        kept.push((grant, extensions, Some(paid)));
        asked(&uri).into_response()
    };
    let gate = counted(&shop, "svc");
    let app = Router::new().route("/", get(handler)).layer(SettleLayer::new()).with_state(gate.clone());
    let server = serve(app).await;
    let token = shop.pay(&server.get("/", &[]).await);
    for (query, spent) in [("200", 1), ("201", 2), ("500", 2)] {
        server.get(&format!("/?{query}"), &[&token.line()]).await;
        assert_eq!((used(&shop, &token).await, open(&shop).await), (spent, 0), "{query}");
    }
    let kept = std::mem::take(&mut *kept.lock().unwrap());
    for (grant, extensions, paid) in kept {
        assert_eq!(grant.service(), "svc");
        if let Some(paid) = paid {
            // The layer has settled it: nothing is left to do.
            let response = paid.settle("too late");
            assert!(!response.headers().contains_key("ratelimit"));
        }
        // Who extracts once more, after the response, is admitted by the same payment.
        let mut head = Request::new(()).into_parts().0;
        head.extensions = extensions;
        let again = <Paid>::from_request_parts(&mut head, &gate).await.unwrap();
        assert_eq!(again.settle("again").headers()["cache-control"], "private");
    }
    assert_eq!((used(&shop, &token).await, open(&shop).await), (2, 0));
}

#[tokio::test]
async fn no_body_is_read_before_the_request_is_admitted() {
    let shop = Shop::new();
    let gate = counted(&shop, "svc");
    let app = Router::new()
        .route("/", post(async |_: Paid, body: Bytes| body.len().to_string()))
        .with_state(gate.clone());
    let post = || Request::post("/").header("expect", "100-continue");
    for (request, status) in [
        (post(), 402),
        (post().header("authorization", "L402 x"), 401),
        (post().header("content-type", "application/grpc"), 200),
        (post().header("authorization", counted(&shop, "other").test_credential()), 402),
    ] {
        let response = app.clone().oneshot(request.body(Body::new(Untouchable)).unwrap()).await.unwrap();
        assert_eq!(response.status(), status);
        assert!(response.extensions().get::<Refusal>().is_some());
    }

    // Over a socket: the client is asked for its upload when it has paid.
    let server = serve(app).await;
    let lines = ["Content-Length: 5", "Expect: 100-continue"];
    let mut socket = server.open("POST /", &lines).await;
    assert_eq!(read_head(&mut socket).await.status, 402);
    let mut socket = server.open("POST /", &[&lines[..], &[&credential(&gate)]].concat()).await;
    assert_eq!(read_head(&mut socket).await.status, 100);
    socket.write_all(b"hello").await.unwrap();
    let mut answer = String::new();
    within(socket.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\n5"), "{answer}");
}

/// The extractor as a middleware, for many handlers at once: it is dropped
/// before they run, so that a layer has to settle.
#[tokio::test]
async fn as_a_middleware_it_is_settled_by_the_layer() {
    let shop = Shop::new();
    let gate = counted(&shop, "svc");
    let app = Router::new()
        .route("/", get(async |uri: Uri, grant: Grant| (asked(&uri), grant.service().to_owned())))
        .route_layer(from_extractor_with_state::<Paid, _>(gate))
        .layer(SettleLayer::new());
    let server = serve(app).await;
    let token = shop.pay(&server.get("/", &[]).await);
    for (path, spent) in [("/", 1), ("/?500", 1), ("/?404", 2)] {
        let answer = server.get(path, &[&token.line()]).await;
        assert_eq!(
            (answer.text(), used(&shop, &token).await, open(&shop).await),
            ("svc", spent, 0),
            "{path}"
        );
    }
}
