//! Gates on axum routers, as API.md's situations have them, and the traps that
//! axum's routing holds for whoever puts one in the wrong place.

#[path = "support/wire.rs"]
mod wire;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::body::Body;
use axum::extract::{MatchedPath, OriginalUri, Path, Request};
use axum::handler::Handler as _;
use axum::http::header::CONTENT_LENGTH;
use axum::routing::{any, get};
use l402::{
    Access, CaveatRegistry, DAY, DevBackend, Gate, Grant, HOUR, Issuer, L402Layer, MissingGate, Offer, Price,
    PriceError,
};
use tower::ServiceExt as _;
use wire::{Paid, Server, Shop, serve};

fn pass(sat: u64) -> Offer {
    Offer::new(Price::sat(sat), Access::pass(HOUR))
}

fn layer(shop: &Shop, name: &str, offer: Offer) -> L402Layer {
    L402Layer::new(Gate::new(&shop.issuer, name, offer).unwrap())
}

async fn buy(shop: &Shop, server: &Server, path: &str) -> Paid {
    shop.pay(&server.get(path, &[]).await)
}

async fn used(shop: &Shop, paid: &Paid) -> u64 {
    shop.issuer.account(paid.preimage.payment_hash()).await.unwrap().map_or(0, |account| account.used)
}

async fn handler() -> &'static str {
    "served"
}

/// `get(h).layer(G)` asks a payment for a method that is not there, and whoever
/// pays has paid for a 405.
#[tokio::test]
async fn a_layer_on_a_method_router_also_gates_its_405() {
    let shop = Shop::new();
    let gate = layer(&shop, "svc", Offer::new(Price::sat(1), Access::uses(5)));
    let server = serve(Router::new().route("/", get(handler).layer(gate))).await;
    assert_eq!(server.send("DELETE /", &[]).await.status, 402);
    let paid = buy(&shop, &server, "/").await;
    assert_eq!(server.send("DELETE /", &[&paid.line()]).await.status, 405);
    assert_eq!(used(&shop, &paid).await, 1, "the use is gone");
}

#[tokio::test]
async fn a_route_layer_and_a_handlers_layer_leave_the_405_free() {
    let shop = Shop::new();
    let app = Router::new()
        .route("/route-layer", get(handler).route_layer(layer(&shop, "a", pass(1))))
        .route("/handler", get(handler.layer(layer(&shop, "b", pass(1)))));
    let server = serve(app).await;
    for path in ["/route-layer", "/handler"] {
        assert_eq!(server.get(path, &[]).await.status, 402, "{path}");
        assert_eq!(server.send(&format!("HEAD {path}"), &[]).await.status, 402, "{path}");
        let answer = server.send(&format!("DELETE {path}"), &[]).await;
        assert_eq!((answer.status, answer.header("allow")), (405, Some("GET,HEAD")), "{path}");
    }
}

/// The `route_layer` of a `Router` is not that of a method router: it stands
/// before the 405 too, though not before the 404.
#[tokio::test]
async fn a_routers_route_layer_also_gates_the_405() {
    let shop = Shop::new();
    let app = Router::new().route("/", get(handler)).route_layer(layer(&shop, "svc", pass(1)));
    let server = serve(app).await;
    assert_eq!(server.send("DELETE /", &[]).await.status, 402);
    assert_eq!(server.get("/missing", &[]).await.status, 404);
}

/// `Router::layer` stands before the router's own 404, `Router::route_layer`
/// does not.
#[tokio::test]
async fn a_layer_on_a_router_also_gates_its_404() {
    let shop = Shop::new();
    let whole = Router::new().route("/", get(handler)).layer(layer(&shop, "a", pass(1)));
    assert_eq!(serve(whole).await.get("/missing", &[]).await.status, 402);
    let routes = Router::new().route("/", get(handler)).route_layer(layer(&shop, "b", pass(1)));
    assert_eq!(serve(routes).await.get("/missing", &[]).await.status, 404);
}

/// `any(h)` is a fallback and no route to axum, which panics at start rather
/// than leave it ungated. Every method is there, so `layer` is right for it.
#[test]
#[should_panic(expected = "Adding a route_layer before any routes is a no-op")]
fn a_route_layer_on_any_panics_at_start() {
    let shop = Shop::new();
    let _: axum::routing::MethodRouter = any(handler).route_layer(layer(&shop, "svc", pass(1)));
}

#[tokio::test]
async fn any_is_gated_by_its_layer() {
    let shop = Shop::new();
    let app = Router::new()
        .route("/a", any(handler).layer(layer(&shop, "a", pass(1))))
        .route("/b", any(handler.layer(layer(&shop, "b", pass(1)))));
    let server = serve(app).await;
    for path in ["/a", "/b"] {
        let paid = buy(&shop, &server, path).await;
        for method in ["GET", "PUT", "OPTIONS", "PROPFIND"] {
            let request = format!("{method} {path}");
            assert_eq!(server.send(&request, &[]).await.status, 402, "{request}");
            assert_eq!(server.send(&request, &[&paid.line()]).await.status, 200, "{request}");
        }
    }
}

/// `Router::route_layer` wraps every route so far: chained, the second gate
/// stands before the first route too. That is answered 500, never by a second
/// invoice, and costs nothing.
#[tokio::test]
async fn a_later_route_layer_wraps_the_earlier_routes() {
    let shop = Shop::new();
    let offer = || Offer::new(Price::sat(1), Access::uses(5));
    let app = Router::new()
        .route("/first", get(handler))
        .route_layer(layer(&shop, "first", offer()))
        .route("/second", get(handler))
        .route_layer(layer(&shop, "second", offer()));
    let server = serve(app).await;
    let answer = server.get("/first", &[]).await;
    assert_eq!((answer.status, answer.json()["l402"]["service"].as_str()), (402, Some("second")));
    let second = shop.pay(&answer);
    let answer = server.get("/first", &[&second.line()]).await;
    assert_eq!((answer.status, &*answer.code()), (500, "nested_gate"));
    assert!(answer.all("www-authenticate").is_empty());
    assert_eq!(used(&shop, &second).await, 0);
    assert_eq!(server.get("/second", &[&second.line()]).await.status, 200);
    assert_eq!(used(&shop, &second).await, 1);
}

/// Two gates of one service before a handler are one debit.
#[tokio::test]
async fn a_gate_within_a_gate_that_takes_the_same_token_takes_one_use() {
    let shop = Shop::new();
    let offer = Offer::new(Price::sat(1), Access::uses(5)).with_capabilities(&["read"]);
    let api = Gate::builder(&shop.issuer, "api", offer);
    let outer = L402Layer::new(api.clone().build().unwrap());
    let inner = L402Layer::new(api.require_capability("read").build().unwrap());
    let left = |grant: Grant| async move { grant.remaining().map_or("pass".into(), |n| n.to_string()) };
    let server = serve(Router::new().route("/", get(left.layer(inner))).route_layer(outer)).await;
    let paid = buy(&shop, &server, "/").await;
    for n in 1..=3 {
        let answer = server.get("/", &[&paid.line()]).await;
        assert_eq!(answer.status, 200);
        assert_eq!(used(&shop, &paid).await, n);
        assert_eq!(answer.all("ratelimit").len(), 1);
        assert_eq!(answer.all("cache-control"), ["private"]);
        assert_eq!(answer.all("vary"), ["Authorization"]);
    }
}

#[tokio::test]
async fn nested_routers_and_routes_with_parameters_are_gated() {
    let shop = Shop::new();
    let item = |Path((shelf, item)): Path<(String, u64)>| async move { format!("{shelf}/{item}") };
    let items = Router::new()
        .route("/{item}", get(item).route_layer(layer(&shop, "items", pass(1))))
        .route("/free", get(handler));
    let files =
        Router::new().route("/{*rest}", get(|Path((_, rest)): Path<(String, String)>| async { rest }));
    let app = Router::new()
        .nest("/v1/{shelf}/items", items)
        .nest("/v1/{shelf}/files", files.route_layer(layer(&shop, "files", pass(1))))
        .fallback(|| async { "fallback" });
    let server = serve(app).await;
    let (items, files) =
        (buy(&shop, &server, "/v1/a/items/7").await, buy(&shop, &server, "/v1/a/files/x/y").await);
    for (path, paid, text) in [
        ("/v1/a/items/7", Some(&items), "a/7"),
        ("/v1/b/items/8?q=1", Some(&items), "b/8"),
        ("/v1/a/files/x/y", Some(&files), "x/y"),
        ("/v1/a/items/free", None, "served"),
        ("/v1/nowhere", None, "fallback"),
    ] {
        let line = paid.map(Paid::line);
        let lines: Vec<_> = line.iter().map(String::as_str).collect();
        assert_eq!(server.get(path, &lines).await.text(), text, "{path}");
        assert_eq!(server.get(path, &[]).await.status, if paid.is_some() { 402 } else { 200 }, "{path}");
    }
    assert_eq!(server.get("/v1/a/files/x", &[&items.line()]).await.code(), "wrong_service");
}

/// What a pricing closure may go by: below `nest` the URI has lost its prefix,
/// `MatchedPath` and `OriginalUri` are whole.
#[tokio::test]
async fn the_matched_path_is_whole_under_nest_and_the_uri_is_not() {
    let shop = Shop::new();
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let log = seen.clone();
    let offer = Offer::priced(
        move |head| {
            let matched = head.extensions.get::<MatchedPath>().map(|path| path.as_str().to_owned());
            let original = head.extensions.get::<OriginalUri>().map(|uri| uri.path().to_owned());
            log.lock().unwrap().push((matched, original, head.uri.path().to_owned()));
            Ok(Price::sat(1))
        },
        Access::once(),
    );
    let items = Router::new().route("/items/{id}", get(handler).route_layer(layer(&shop, "items", offer)));
    let server = serve(Router::new().nest("/shop", Router::new().nest("/v1", items))).await;
    let paid = buy(&shop, &server, "/shop/v1/items/7").await;
    assert_eq!(server.get("/shop/v1/items/7", &[&paid.line()]).await.status, 200);
    let whole = (Some("/shop/v1/items/{id}".into()), Some("/shop/v1/items/7".into()), "/items/7".into());
    let seen = seen.lock().unwrap();
    assert!(!seen.is_empty());
    assert!(seen.iter().all(|seen| *seen == whole), "{seen:?}");
}

/// The price of an item by its number: 3 is dear.
fn by_item(access: Access) -> Offer {
    let price = |id: &str| if id == "3" { Price::sat(30) } else { Price::sat(10) };
    Offer::priced(
        move |head| {
            let id = head.uri.path().rsplit('/').next().unwrap_or_default();
            id.parse::<u64>().map_err(|_| PriceError::reject(axum::http::StatusCode::NOT_FOUND))?;
            Ok(price(id))
        },
        access,
    )
}

/// A pass sold at the price of one item opens every item that costs as much or
/// less, unless a condition ties it to the one.
#[tokio::test]
async fn a_price_per_item_with_a_pass_needs_a_bind() {
    let item = |head: &axum::http::request::Parts| head.uri.path().strip_prefix("/items/").map(str::to_owned);
    for (bound, other) in [(false, (200, None)), (true, (402, Some("condition_failed")))] {
        let caveats = CaveatRegistry::new();
        let caveats = if bound { caveats.bind("item", item) } else { caveats };
        let shop = Shop::with(|builder| builder.with_caveats(caveats));
        let gate = layer(&shop, "items", by_item(Access::pass(HOUR)));
        let server = serve(Router::new().route("/items/{id}", get(handler).route_layer(gate))).await;
        let one = buy(&shop, &server, "/items/1").await;
        assert_eq!(server.get("/items/1", &[&one.line()]).await.status, 200);
        let two = server.get("/items/2", &[&one.line()]).await;
        let code = (two.status != 200).then(|| two.code());
        assert_eq!((two.status, code.as_deref()), other, "bound: {bound}");
        // Dear ones it opens in neither case.
        let three = server.get("/items/3", &[&one.line()]).await;
        assert_eq!(three.code(), if bound { "condition_failed" } else { "price_too_high" });
        assert_eq!(server.get("/items/none", &[&one.line()]).await.status, 404, "not for sale");
        // The token of a dear one opens the cheap ones, unbound.
        let dear = buy(&shop, &server, "/items/3").await;
        assert_eq!(server.get("/items/2", &[&dear.line()]).await.status, other.0);
    }
}

/// Situation 2: three prices, one issuer.
#[tokio::test]
async fn gates_of_one_issuer_sell_their_own_tokens() {
    let shop = Shop::new();
    let app = ["now", "archive", "archive-hd"].into_iter().zip([1, 500, 500]).fold(
        Router::new(),
        |app, (name, sat)| {
            app.route(&format!("/{name}"), get(handler).route_layer(layer(&shop, name, pass(sat))))
        },
    );
    let server = serve(app).await;
    for (name, msat) in [("now", 1_000), ("archive", 500_000), ("archive-hd", 500_000)] {
        let answer = server.get(&format!("/{name}"), &[]).await;
        assert_eq!(answer.json()["l402"]["price_msat"], msat);
        let paid = shop.pay(&answer);
        for other in ["now", "archive", "archive-hd"] {
            let status = server.get(&format!("/{other}"), &[&paid.line()]).await.status;
            assert_eq!(status, if other == name { 200 } else { 402 }, "{name} at {other}");
        }
    }
}

/// Situation 3: one token, several routes; offers sell, gates require.
#[tokio::test]
async fn one_token_opens_the_methods_that_its_capabilities_name() {
    let shop = Shop::new();
    let offer = Offer::new(Price::sat(1_000), Access::pass(30 * DAY));
    let offer = offer.with_capabilities(&["read", "write"]).with_tier(1);
    let api = Gate::builder(&shop.issuer, "api", offer);
    let read = L402Layer::new(api.clone().require_capability("read").build().unwrap());
    let write = L402Layer::new(api.clone().require_capability("write").build().unwrap());
    let list = |grant: Grant| async move {
        format!("tier {}, may write: {}", grant.tier(), grant.has_capability("write"))
    };
    let add = || async { "added" };
    let server = serve(Router::new().route("/items", get(list.layer(read)).post(add.layer(write)))).await;

    let both = buy(&shop, &server, "/items").await;
    assert_eq!(server.get("/items", &[&both.line()]).await.text(), "tier 1, may write: true");
    assert_eq!(server.send("POST /items", &["Content-Length: 0", &both.line()]).await.text(), "added");

    let reader = both.attenuated("api_capabilities=read");
    assert_eq!(server.get("/items", &[&reader.line()]).await.text(), "tier 1, may write: false");
    let refused = server.send("POST /items", &["Content-Length: 0", &reader.line()]).await;
    assert_eq!((refused.status, &*refused.code()), (402, "missing_capability"));
    assert_eq!(
        server.send("DELETE /items", &[]).await.status,
        405,
        "nobody pays for a method that is not there"
    );
}

/// The handler of situations 6 and 12.
async fn forecast(grant: Grant) -> String {
    match (grant.remaining(), grant.expires_at()) {
        (Some(n), Some(_)) => format!("{n} left"),
        _ => "pass".into(),
    }
}

/// Situation 6: the grant.
#[tokio::test]
async fn a_handler_learns_what_it_was_granted() {
    let shop = Shop::new();
    let counted = Offer::new(Price::sat(1), Access::uses(100).within(DAY));
    let app = Router::new()
        .route("/forecast", get(forecast).route_layer(layer(&shop, "forecast", counted)))
        .route("/pass", get(forecast).route_layer(layer(&shop, "pass", pass(1))))
        .route(
            "/free",
            get(|grant: Grant| async move { grant.is_paid().to_string() }).route_layer(layer(
                &shop,
                "free",
                Offer::new(Price::Free, Access::once()),
            )),
        );
    let server = serve(app).await;
    let paid = buy(&shop, &server, "/forecast").await;
    for left in [99, 98, 97] {
        assert_eq!(server.get("/forecast", &[&paid.line()]).await.text(), format!("{left} left"));
    }
    let paid = buy(&shop, &server, "/pass").await;
    assert_eq!(server.get("/pass", &[&paid.line()]).await.text(), "pass");
    assert_eq!(server.get("/free", &[]).await.text(), "false");
}

#[tokio::test]
async fn a_handler_without_its_gate_is_a_500_and_never_free() {
    let calls = Arc::new(AtomicUsize::new(0));
    let seen = calls.clone();
    let handler = get(move |_: Grant| {
        seen.fetch_add(1, Ordering::SeqCst);
        async {}
    });
    let app = Router::new().route("/", handler);
    let response = app.clone().oneshot(Request::get("/").body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(response.status(), 500);
    assert_eq!(response.extensions().get::<MissingGate>(), Some(&MissingGate));

    // Nor does a token make up for it.
    let shop = Shop::new();
    let gate = Gate::new(&shop.issuer, "svc", pass(1)).unwrap();
    let server = serve(app).await;
    let line = format!("Authorization: {}", gate.test_credential().to_str().unwrap());
    let answer = server.get("/", &[&line]).await;
    assert_eq!((answer.status, answer.text()), (500, "the server is built wrong"));
    assert_eq!(calls.load(Ordering::SeqCst), 0);
}

/// Situation 8: what the server binds, and what a holder may add.
#[tokio::test]
async fn conditions_of_the_servers_own_are_bound_and_checked() {
    let length = |head: &axum::http::request::Parts| {
        head.headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse::<u64>().ok()
    };
    let caveats = CaveatRegistry::new()
        .bind("tenant", |head| head.headers.get("x-tenant").and_then(|v| v.to_str().ok()).map(str::to_owned))
        .check(
            "max_bytes",
            move |c| matches!((c.value().parse::<u64>(), length(c.head())), (Ok(max), Some(n)) if n <= max),
        );
    let shop = Shop::with(|builder| builder.with_caveats(caveats));
    let gate = layer(&shop, "api", pass(1));
    let server = serve(Router::new().route("/", any(handler).layer(gate))).await;

    let of_a = shop.pay(&server.get("/", &["X-Tenant: a"]).await);
    let of_none = shop.pay(&server.get("/", &[]).await);
    let small = of_a.attenuated("max_bytes=3");
    for (paid, lines, status) in [
        (&of_a, vec!["X-Tenant: a"], 200),
        (&of_a, vec!["X-Tenant: b"], 402),
        (&of_a, vec!["X-Tenant: A"], 402),
        (&of_a, vec!["X-Tenant: "], 402),
        (&of_a, vec![], 402),
        (&of_none, vec![], 200),
        (&of_none, vec!["X-Tenant: a"], 402),
        (&small, vec!["X-Tenant: a", "Content-Length: 3"], 200),
        (&small, vec!["X-Tenant: a", "Content-Length: 4"], 402),
        (&small, vec!["X-Tenant: a"], 402),
        (&small, vec!["Content-Length: 3"], 402),
        (&of_a.attenuated("max_bytes=many"), vec!["X-Tenant: a", "Content-Length: 0"], 402),
        // A holder cannot bind what the server did not, nor bind it anew.
        (&of_none.attenuated("tenant=a"), vec!["X-Tenant: a"], 402),
        (&of_a.attenuated("tenant=b"), vec!["X-Tenant: b"], 402),
        (&of_a.attenuated("tenant=a"), vec!["X-Tenant: a"], 200),
    ] {
        let line = paid.line();
        let mut all = lines.clone();
        all.push(&line);
        let answer = server.send_body("POST /", &all, b"four").await;
        assert_eq!(answer.status, status, "{lines:?}");
        if status == 402 {
            assert_eq!(answer.code(), "condition_failed", "{lines:?}");
        }
    }
}

/// Situation 12: the user's own tests, without a payment.
#[tokio::test]
async fn a_handler_is_tested_without_a_payment() {
    assert_eq!(forecast(Grant::test().with_remaining(3).build()).await, "3 left");
    assert_eq!(forecast(Grant::test().build()).await, "pass");

    let wallet = DevBackend::new();
    let issuer = Issuer::dev(&wallet);
    let gate =
        Gate::new(&issuer, "forecast", Offer::new(Price::sat(21), Access::uses(100).within(DAY))).unwrap();
    let app = Router::new().route("/", get(forecast).route_layer(L402Layer::new(gate.clone())));
    for _ in 0..2 {
        let request = Request::get("/").header("authorization", gate.test_credential());
        let response = app.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        let body = axum::body::to_bytes(response.into_body(), 100).await.unwrap();
        assert_eq!(body, "99 left", "each credential is a token of its own");
    }
    assert_eq!(wallet.payments(), 0);
}

#[tokio::test]
async fn a_test_credential_opens_a_gate_of_any_offer() {
    let shop = Shop::new();
    for (name, offer) in [
        ("pass", pass(1)),
        ("counted", Offer::new(Price::sat(1), Access::uses(2))),
        ("priced", by_item(Access::once())),
        ("tiered", pass(1).with_tier(3).with_capabilities(&["read"])),
    ] {
        let gate = Gate::new(&shop.issuer, name, offer).unwrap();
        let app = Router::new().route("/items/{id}", get(handler).route_layer(L402Layer::new(gate.clone())));
        let server = serve(app).await;
        let line = format!("Authorization: {}", gate.test_credential().to_str().unwrap());
        assert_eq!(server.get("/items/3", &[&line]).await.text(), "served", "{name}");
    }
}
