//! The paying client against our own server, over sockets: what it pays, and
//! what it does not pay twice.

#![allow(missing_docs)]

#[path = "support/bolt11.rs"]
mod bolt11;
#[path = "support/script.rs"]
mod script;
#[path = "support/wire.rs"]
mod wire;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse as _, Redirect};
use axum::routing::{get, post};
use http::{Request, StatusCode};
use l402::client::{Budget, Client, ErrorKind, Limit, MemoryStore, Payer};
use l402::{Access, DAY, Gate, Grant, HOUR, L402Layer, Offer, Price};
use script::payer;
use tokio::task::JoinSet;
use wire::{Server, Shop, serve};

async fn forecast(grant: Grant) -> String {
    format!("sunny; {:?} left", grant.remaining())
}

fn gate(shop: &Shop, service: &str, access: Access) -> L402Layer {
    L402Layer::new(Gate::new(&shop.issuer, service, Offer::new(Price::sat(21), access)).unwrap())
}

fn url(server: &Server, path: &str) -> String {
    format!("http://{}{path}", server.address)
}

#[tokio::test]
async fn a_url_is_paid_for_once_and_the_token_used_again() {
    let shop = Shop::new();
    let app = Router::new()
        .route("/forecast", get(forecast))
        .route("/other", get(forecast))
        .route_layer(gate(&shop, "forecast", Access::uses(100).within(DAY)));
    let server = serve(app).await;
    let told = Arc::new(Mutex::new(Vec::new()));
    let tells = told.clone();
    let client =
        Client::new(payer(&shop).on_receipt(move |receipt| tells.lock().unwrap().push(receipt.clone())));

    let paid = client.pay(url(&server, "/forecast?a=b"), 21_000).await.unwrap();
    assert_eq!(
        (paid.response.status().as_u16(), &**paid.response.body()),
        (200, &b"sunny; Some(99) left"[..])
    );
    let receipt = paid.receipt.unwrap();
    assert_eq!((receipt.amount_msat, receipt.fee_msat, &*receipt.path), (21_000, 0, "/forecast"));
    assert_eq!(receipt.origin, format!("http://{}", server.address));
    assert!(receipt.scope.starts_with("services=forecast:0\n"), "{receipt:?}");

    for (path, left) in [("/forecast", 98), ("/other", 97), ("/other?x", 96)] {
        let paid = client.pay(url(&server, path), 0).await.unwrap();
        assert_eq!(&**paid.response.body(), format!("sunny; Some({left}) left").as_bytes(), "{path}");
        assert!(paid.receipt.is_none());
    }
    assert_eq!(shop.wallet.payments(), 1);
    assert_eq!(*told.lock().unwrap(), std::slice::from_ref(&receipt));
    let receipts: Vec<_> = client.payer().receipts().await.unwrap().collect();
    assert_eq!(receipts, [receipt]);
    assert_eq!(client.payer().spent().await.unwrap().total_msat, 21_000);
}

#[tokio::test]
async fn a_token_that_is_used_up_or_expired_is_bought_anew() {
    let shop = Shop::new();
    let app = Router::new()
        .route("/uses", get(forecast).route_layer(gate(&shop, "uses", Access::uses(2))))
        .route("/pass", get(forecast).route_layer(gate(&shop, "pass", Access::pass(HOUR))));
    let server = serve(app).await;
    let client = Client::new(payer(&shop));
    for (path, payments) in
        [("/uses", 1), ("/uses", 1), ("/uses", 2), ("/pass", 3), ("/pass", 3), ("/uses", 3)]
    {
        assert_eq!(client.get(url(&server, path)).await.unwrap().status(), 200, "{path}");
        assert_eq!(shop.wallet.payments(), payments, "{path}");
    }
    shop.clock.advance(2 * HOUR);
    assert_eq!(client.get(url(&server, "/pass")).await.unwrap().status(), 200);
    assert_eq!(shop.wallet.payments(), 4);
}

#[tokio::test]
async fn a_token_for_one_request_belongs_to_it() {
    let shop = Shop::new();
    let fails = Arc::new(AtomicUsize::new(1));
    let failing = fails.clone();
    let handler = move || {
        let failing = failing.clone();
        async move {
            let left = failing.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
            if left.is_ok() { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::OK }
        }
    };
    let app = Router::new().route("/once", get(handler).route_layer(gate(&shop, "once", Access::once())));
    let server = serve(app).await;
    let store = MemoryStore::new();
    let client = Client::new(payer(&shop).with_store(Arc::new(store)));
    // What the server failed to do is done with the same token the next time.
    for (status, payments) in [(500, 1), (200, 1), (200, 2), (200, 3)] {
        assert_eq!(client.get(url(&server, "/once")).await.unwrap().status(), status);
        assert_eq!(shop.wallet.payments(), payments);
    }
    let mut requests = JoinSet::new();
    for _ in 0..20 {
        let (client, url) = (client.clone(), url(&server, "/once"));
        requests.spawn(async move { client.get(url).await.unwrap().status().as_u16() });
    }
    assert_eq!(requests.join_all().await, [200; 20]);
    assert_eq!(shop.wallet.payments(), 23);
}

/// What asks before the gate, and turns the token away without using it up.
#[tokio::test]
async fn an_answer_that_is_no_success_keeps_a_token_for_one_request() {
    for refusal in [400, 401, 404, 408, 425, 429, 503] {
        let shop = Shop::new();
        let is_closed = Arc::new(AtomicBool::new(true));
        let guard = from_fn(move |request: Request<_>, next: Next| {
            let is_paid = request.headers().contains_key("authorization");
            let refused = is_paid && is_closed.swap(false, Ordering::SeqCst);
            async move {
                if refused {
                    StatusCode::from_u16(refusal).unwrap().into_response()
                } else {
                    next.run(request).await
                }
            }
        });
        let once = get(forecast).route_layer(gate(&shop, "once", Access::once()));
        let server = serve(Router::new().route("/once", once).layer(guard)).await;
        let client = Client::new(payer(&shop));
        for (status, payments) in [(refusal, 1), (200, 1), (200, 2)] {
            assert_eq!(client.get(url(&server, "/once")).await.unwrap().status(), status, "{refusal}");
            assert_eq!(shop.wallet.payments(), payments, "{refusal}");
        }
    }
}

#[tokio::test]
async fn requests_at_once_buy_one_token() {
    let shop = Shop::new();
    let app = Router::new().route("/a", get(forecast)).route("/b", get(forecast));
    let server = serve(app.route_layer(gate(&shop, "forecast", Access::pass(DAY)))).await;
    let client = Client::new(payer(&shop));
    let mut requests = JoinSet::new();
    for n in 0..50 {
        let (client, url) = (client.clone(), url(&server, if n % 2 == 0 { "/a" } else { "/b" }));
        requests.spawn(async move { client.get(url).await.unwrap().status().as_u16() });
    }
    assert_eq!(requests.join_all().await, [200; 50]);
    assert_eq!(shop.wallet.payments(), 1);
}

#[tokio::test]
async fn the_buyer_of_a_few_uses_has_the_first() {
    let shop = Shop::new();
    let app = Router::new().route("/a", get(forecast));
    let server = serve(app.route_layer(gate(&shop, "forecast", Access::uses(2)))).await;
    let client = Client::new(payer(&shop));
    let mut requests = JoinSet::new();
    for _ in 0..24 {
        let (client, url) = (client.clone(), url(&server, "/a"));
        requests.spawn(async move { client.get(url).await.unwrap().status().as_u16() });
    }
    assert_eq!(requests.join_all().await, [200; 24]);
    assert_eq!(shop.wallet.payments(), 12);
}

#[tokio::test]
async fn a_budget_for_ten_pays_ten_of_two_hundred_at_once() {
    let shop = Shop::new();
    let app = Router::new().route("/once", get(forecast));
    let server = serve(app.route_layer(gate(&shop, "once", Access::once()))).await;
    let budget = |budget: Budget| budget.with_origin_sat(1_000).with_request_sat(50);
    for (budget, limit, requests_at_once) in [
        (budget(Budget::default()).with_hour_sat(210), Limit::Hour, 200),
        (budget(Budget::default()).with_day_sat(210), Limit::Day, 20),
        (budget(Budget::default()).with_total_sat(210), Limit::Total, 20),
        (budget(Budget::default()).with_origin_sat(210), Limit::Origin, 20),
    ] {
        let before = shop.wallet.payments();
        let client = Client::new(payer(&shop).with_budget(budget));
        let mut requests = JoinSet::new();
        for _ in 0..requests_at_once {
            let (client, url) = (client.clone(), url(&server, "/once"));
            requests.spawn(async move { client.get(url).await.map(|answer| answer.status().as_u16()) });
        }
        let answers = requests.join_all().await;
        let paid = answers.iter().filter(|answer| matches!(answer, Ok(200))).count();
        let refused =
            answers.iter().filter_map(|answer| answer.as_ref().err().map(l402::client::Error::kind));
        assert_eq!(paid, 10, "{limit:?}");
        assert_eq!(
            refused.filter(|kind| *kind == ErrorKind::OverBudget(limit)).count(),
            requests_at_once - 10
        );
        assert_eq!(shop.wallet.payments() - before, 10, "{limit:?}");
        assert_eq!(client.payer().spent().await.unwrap().total_msat, 210_000);
    }
}

#[tokio::test]
async fn what_a_token_opens_decides_where_it_is_used() {
    let shop = Shop::new();
    let offers = |capability: &'static str| {
        Offer::new(Price::sat(21), Access::pass(DAY)).with_id(capability).with_capabilities(&[capability])
    };
    let gated = |capability: &'static str, builder: l402::GateBuilder| {
        get(forecast).route_layer(L402Layer::new(builder.require_capability(capability).build().unwrap()))
    };
    let read = Gate::builder(&shop.issuer, "docs", offers("read"));
    let write = Gate::builder(&shop.issuer, "files", offers("write"));
    let both = Gate::builder(&shop.issuer, "all", offers("any").also_opens(&["extra"]));
    let app = Router::new()
        .route("/docs/1", gated("read", read.clone()))
        .route("/docs/2", gated("read", read))
        .route("/files", gated("write", write))
        .route("/all", gated("any", both));
    let server = serve(app).await;
    let client = Client::new(payer(&shop));
    for (path, payments) in [
        ("/docs/1", 1),
        ("/docs/2", 1),
        ("/files", 2),
        ("/docs/1", 2),
        ("/files", 2),
        ("/all", 3),
        ("/docs/2", 3),
    ] {
        assert_eq!(client.get(url(&server, path)).await.unwrap().status(), 200, "{path}");
        assert_eq!(shop.wallet.payments(), payments, "{path}");
    }
}

#[tokio::test]
async fn a_price_by_request_buys_each_price_once_and_loses_no_token() {
    let shop = Shop::new();
    let offer = Offer::priced(
        |head| Ok(Price::sat(if head.uri.query().is_some() { 50 } else { 10 })),
        Access::uses(100).within(DAY),
    );
    let gate = Gate::new(&shop.issuer, "document", offer).unwrap();
    let server =
        serve(Router::new().route("/document", get(forecast).route_layer(L402Layer::new(gate)))).await;
    let client = Client::new(payer(&shop));
    for (path, payments, left) in [
        ("/document", 1, 99),
        ("/document?long", 2, 99),
        ("/document?long", 2, 98),
        // The token of the higher price opens it too.
        ("/document", 2, 97),
    ] {
        let answer = client.get(url(&server, path)).await.unwrap();
        assert_eq!(&**answer.body(), format!("sunny; Some({left}) left").as_bytes(), "{path}");
        assert_eq!(shop.wallet.payments(), payments, "{path}");
    }
}

#[tokio::test]
async fn method_headers_and_body_are_sent_again() {
    let shop = Shop::new();
    let echo = async |headers: http::HeaderMap, body: String| {
        format!("{} {body}", headers["x-name"].to_str().unwrap())
    };
    let app = Router::new().route("/echo", post(echo).route_layer(gate(&shop, "echo", Access::once())));
    let server = serve(app).await;
    let request = Request::post(url(&server, "/echo")).header("x-name", "value").body("text".repeat(50_000));
    let answer = Client::new(payer(&shop)).request(request.unwrap()).await.unwrap();
    assert_eq!(&**answer.body(), format!("value {}", "text".repeat(50_000)).as_bytes());
    assert_eq!(shop.wallet.payments(), 1);
}

#[tokio::test]
async fn a_redirect_is_followed_within_the_origin_and_paid_for_there() {
    let shop = Shop::new();
    let other = serve(Router::new().route("/", get(async || "other"))).await;
    let elsewhere = url(&other, "/?secret");
    let app = Router::new()
        .route("/a", get(async || Redirect::temporary("b/../c")))
        .route("/post", post(async || Redirect::to("/c")))
        .route("/c", get(forecast).route_layer(gate(&shop, "c", Access::uses(9))))
        .route("/loop", get(async || Redirect::permanent("/loop")))
        .route(
            "/paid-loop",
            get(async || Redirect::permanent("/c2")).route_layer(gate(&shop, "d", Access::once())),
        )
        .route("/c2", get(forecast).route_layer(gate(&shop, "e", Access::once())))
        .route("/away", get(async move || Redirect::temporary(&elsewhere)));
    let server = serve(app).await;
    let client = Client::new(payer(&shop));
    assert_eq!(&**client.get(url(&server, "/a")).await.unwrap().body(), b"sunny; Some(8) left");
    let posted = Request::post(url(&server, "/post")).body("text").unwrap();
    assert_eq!(&**client.request(posted).await.unwrap().body(), b"sunny; Some(7) left");

    let error = client.get(url(&server, "/loop")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooManyRedirects);
    let error = client.get(url(&server, "/away")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Redirect);
    assert!(
        error.to_string().contains(&url(&other, "/")) && !error.to_string().contains("secret"),
        "{error}"
    );
    assert_eq!(shop.wallet.payments(), 1);

    // One call pays once.
    let error = client.pay(url(&server, "/paid-loop"), 100_000).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OverBudget(Limit::Request));
    assert_eq!(error.receipt().unwrap().path, "/paid-loop");
    assert_eq!(shop.wallet.payments(), 2);
}

#[tokio::test]
async fn a_refused_credential_is_the_callers_and_keeps_the_token() {
    let shop = Shop::new();
    let is_closed = Arc::new(AtomicBool::new(false));
    let closed = is_closed.clone();
    let handler = async move || {
        if closed.load(Ordering::SeqCst) { StatusCode::UNAUTHORIZED } else { StatusCode::OK }
    };
    let app = Router::new().route("/a", get(handler).route_layer(gate(&shop, "a", Access::uses(9))));
    let server = serve(app).await;
    let client = Client::new(payer(&shop));
    for (closes, status) in [(false, 200), (true, 401), (false, 200)] {
        is_closed.store(closes, Ordering::SeqCst);
        assert_eq!(client.get(url(&server, "/a")).await.unwrap().status(), status);
    }
    assert_eq!(shop.wallet.payments(), 1);
}

#[tokio::test]
async fn a_callers_own_authorization_stays() {
    let shop = Shop::new();
    let app = Router::new().route(
        "/a",
        get(async |headers: http::HeaderMap| {
            let lines = headers.get_all("authorization").iter();
            lines.map(|line| line.to_str().unwrap().to_owned()).collect::<Vec<_>>().join(",")
        }),
    );
    let server = serve(app.route_layer(gate(&shop, "a", Access::uses(9)))).await;
    let client = Client::new(payer(&shop));
    let with =
        |value: &str| Request::get(url(&server, "/a")).header("authorization", value).body(()).unwrap();
    assert_eq!(&**client.request(with("Bearer x")).await.unwrap().body(), b"Bearer x");
    assert_eq!(shop.wallet.payments(), 1);
    // Who brings a credential of ours has decided what to pay.
    for value in ["L402 AgEE:00", "lsat AgEE:00", "Bearer x, L402 AgEE:00", "L402"] {
        let answer = client.request(with(value)).await.unwrap();
        assert_eq!(answer.status(), 401, "{value}");
    }
    assert_eq!(shop.wallet.payments(), 1);
}

#[tokio::test]
async fn answers_are_of_bounded_size_and_in_bounded_time() {
    let shop = Shop::new();
    let endless = async || {
        let stream =
            tokio_stream::iter(std::iter::repeat_with(|| Ok::<_, std::io::Error>("text".repeat(1024))));
        axum::body::Body::from_stream(stream)
    };
    let app = Router::new()
        .route("/endless", get(endless))
        .route("/never", get(async || std::future::pending::<()>().await))
        .route("/small", get(async || "12345"));
    let server = serve(app).await;
    let client = Client::new(payer(&shop)).with_max_answer(5).with_time_limit(Duration::from_secs(10));
    assert_eq!(&**client.get(url(&server, "/small")).await.unwrap().body(), b"12345");
    for (client, path, kind) in [
        (client.clone(), "/endless", ErrorKind::TooLong),
        (client.clone().with_max_answer(4), "/small", ErrorKind::TooLong),
        (client.with_time_limit(Duration::from_millis(50)), "/never", ErrorKind::Timeout),
    ] {
        assert_eq!(client.get(url(&server, path)).await.unwrap_err().kind(), kind, "{path}");
    }
}

#[tokio::test]
async fn a_url_that_is_none_is_refused_and_no_password_shown() {
    let client = Client::new(payer(&Shop::new()));
    for url in
        ["", "/a", "api.example/a", "ftp://api.example", "https://u:secret@api.example", "https://a:b", "x y"]
    {
        let error = client.get(url).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Origin, "{url}");
        assert!(!error.to_string().contains("secret"), "{error}");
    }
    let error = client.get("http://127.0.0.1:1/").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Transport);
}

#[tokio::test]
async fn a_caller_who_leaves_loses_no_payment() {
    let shop = Shop::new();
    let app = Router::new().route("/a", get(forecast));
    let server = serve(app.route_layer(gate(&shop, "a", Access::uses(9)))).await;
    // Whoever is asked leaves the caller the time to go.
    let (asked, mut asks) = tokio::sync::mpsc::unbounded_channel();
    let client = Client::new(payer(&shop).with_confirmation(move |_| asked.send(()).is_ok()));
    {
        let mut leaving = std::pin::pin!(client.get(url(&server, "/a")));
        tokio::select! {
            _ = &mut leaving => {}
            _ = asks.recv() => {}
        }
    }
    // The next one waits for that purchase, and uses its token.
    assert_eq!(client.get(url(&server, "/a")).await.unwrap().status(), 200);
    assert_eq!(shop.wallet.payments(), 1);
}

#[test]
fn what_users_hold_is_small_and_can_go_to_other_threads() {
    fn is_send_sync<T: Send + Sync + Clone + 'static>() {}
    is_send_sync::<Client>();
    is_send_sync::<Payer>();
    is_send_sync::<l402::client::L402ClientLayer>();
    is_send_sync::<l402::client::L402Client<Client>>();
    assert_eq!(size_of::<l402::client::Error>(), size_of::<usize>());
}
