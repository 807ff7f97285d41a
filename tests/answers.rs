//! What a request that was not admitted is answered: status, headers, body,
//! extensions, for HTTP and for gRPC, over real HTTP.

#[path = "support/wire.rs"]
mod wire;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::middleware::map_response;
use axum::response::Response;
use axum::routing::{any, get};
use l402::ledger::{
    Account, AccountId, Ledger, LedgerError, OpenReservation, ReservationId, Reserve, Reserved, Revocation,
    Revocations,
};
use l402::macaroon::{Identifier, mint};
use l402::{
    Access, BackendError, Capabilities, Cause, CaveatRegistry, DAY, DevBackend, FixedClock, Gate, HOUR,
    Invoice, InvoiceRequest, Issuer, KeyRing, L402Layer, MemoryLedger, Network, Offer, PaymentBackend, Price,
    PriceError, Refusal, RootKey,
};
use lightning_invoice::Bolt11Invoice;
use serde_json::{Value, json};
use wire::{Answer, NOW, Paid, ROOT, Server, Shop, serve};

/// A ledger in a database that is gone.
#[derive(Debug, Default)]
struct LostLedger(Revocations);

#[async_trait]
impl Ledger for LostLedger {
    fn instance(&self) -> Option<[u8; 16]> {
        None
    }
    fn revocations(&self) -> &Revocations {
        &self.0
    }
    async fn reserve(&self, _: &Reserve) -> Result<Reserved, LedgerError> {
        Err(LedgerError::new("database is gone"))
    }
    async fn commit(&self, _: &ReservationId) -> Result<(), LedgerError> {
        unreachable!("nothing was reserved")
    }
    async fn release(&self, _: &ReservationId, _: u64) -> Result<(), LedgerError> {
        Err(LedgerError::new("database is gone"))
    }
    async fn credit(&self, _: &AccountId, _: u64, _: &str, _: u64) -> Result<(), LedgerError> {
        unreachable!("nothing is credited")
    }
    async fn account(&self, _: &AccountId) -> Result<Option<Account>, LedgerError> {
        Err(LedgerError::new("database is gone"))
    }
    async fn revoke(&self, _: &Revocation) -> Result<(), LedgerError> {
        Err(LedgerError::new("database is gone"))
    }
    async fn open_reservations(&self) -> Result<Vec<OpenReservation>, LedgerError> {
        Err(LedgerError::new("database is gone"))
    }
}

/// A node that cannot be reached.
#[derive(Debug)]
struct LostNode;

#[async_trait]
impl PaymentBackend for LostNode {
    fn capabilities(&self) -> Capabilities {
        Capabilities::node(Network::Regtest)
    }
    async fn create_invoice(&self, _: &InvoiceRequest) -> Result<Invoice, BackendError> {
        Err(BackendError::connect("no route to host"))
    }
}

/// One route for every situation.
struct Site {
    shop: Shop,
    server: Server,
    calls: Arc<AtomicUsize>,
}

impl Site {
    #[allow(clippy::too_many_lines)] // a list of routes
    async fn open() -> Self {
        let caveats = CaveatRegistry::new()
            .check("path_prefix", |c| c.head().uri.path().starts_with(c.value()))
            .bind("tenant", |head| Some(head.headers.get("x-tenant")?.to_str().ok()?.to_owned()));
        let shop = Shop::with(|builder| builder.with_caveats(caveats));
        let issuer = &shop.issuer;
        let pass = |price| Offer::new(price, Access::pass(HOUR));
        let sat = Price::sat(21);
        let with = |backend: Arc<dyn PaymentBackend>, ledger: Option<Arc<dyn Ledger>>| {
            let keys = KeyRing::new(RootKey::new(ROOT).unwrap());
            let mut builder =
                Issuer::builder(keys, backend).with_network(Network::Regtest).with_clock(FixedClock::at(NOW));
            if let Some(ledger) = ledger {
                builder = builder.with_ledger(ledger);
            }
            builder.build().unwrap()
        };
        let lost_node = with(Arc::new(LostNode), None);
        let lost_ledger = with(Arc::new(shop.wallet.clone()), Some(Arc::new(LostLedger::default())));
        let no_ledger = with(Arc::new(shop.wallet.clone()), None);
        let no_place = Shop::with(|builder| builder.with_invoice_limits(0, Duration::from_secs(1)));

        let svc = Gate::builder(
            issuer,
            "svc",
            pass(sat)
                .with_title("A pass")
                .with_description("Everything")
                .with_capabilities(&["read", "list"]),
        );
        let gold = pass(Price::sat(50)).with_id("gold").with_tier(2).with_capabilities(&["write"]);
        let by_path = Offer::priced(
            |head| match head.uri.path() {
                "/priced/dear" => Ok(Price::sat(30)),
                "/priced/free" => Ok(Price::Free),
                "/priced/none" => Err(PriceError::reject(StatusCode::NOT_FOUND)),
                "/priced/gone" => Err(PriceError::reject(StatusCode::GONE)),
                "/priced/402" => Err(PriceError::reject(StatusCode::PAYMENT_REQUIRED)),
                "/priced/500" => Err(PriceError::reject(StatusCode::INTERNAL_SERVER_ERROR)),
                "/priced/down" => Err(PriceError::unavailable("rates are down")),
                "/priced/zero" => Ok(Price::try_msat(0)?),
                _ => Ok(Price::sat(20)),
            },
            Access::pass(HOUR),
        );
        let calls = Arc::new(AtomicUsize::new(0));
        let seen = calls.clone();
        let handler = any(move || {
            seen.fetch_add(1, Ordering::SeqCst);
            async { "served" }
        });
        let behind = |gate: Result<Gate, l402::Error>| handler.clone().layer(L402Layer::new(gate.unwrap()));
        let nested = behind(Gate::new(issuer, "inner", pass(sat)));
        let app = Router::new()
            .route("/svc", behind(svc.clone().build()))
            .route("/gold", behind(svc.clone().add_offer(gold.clone()).require_tier(2).build()))
            .route("/write", behind(svc.clone().add_offer(gold).require_capability("write").build()))
            .route("/once", behind(Gate::new(issuer, "once", Offer::new(sat, Access::once()))))
            .route(
                "/bound",
                behind(Gate::builder(issuer, "bound", pass(sat)).require_condition("tenant").build()),
            )
            .route("/priced/{how}", behind(Gate::new(issuer, "priced", by_path)))
            .route("/nested", nested.layer(L402Layer::new(Gate::new(issuer, "outer", pass(sat)).unwrap())))
            .route("/lost-node", behind(Gate::new(&lost_node, "lost", pass(sat))))
            .route("/no-place", behind(Gate::new(&no_place.issuer, "full", pass(sat))))
            .route("/lost-ledger", behind(Gate::new(&lost_ledger, "lent", Offer::new(sat, Access::uses(9)))))
            .route("/no-ledger", behind(Gate::new(&no_ledger, "lent", pass(sat))))
            .route(
                "/preflight",
                handler.clone().layer(
                    L402Layer::new(Gate::new(issuer, "preflight", pass(sat)).unwrap()).forward_preflight(),
                ),
            )
            .route(
                "/read",
                get(|| async { "read" }).route_layer(L402Layer::new(
                    Gate::new(issuer, "read", Offer::new(sat, Access::uses(5))).unwrap(),
                )),
            )
            .layer(map_response(show_extensions));
        Self { server: serve(app).await, shop, calls }
    }

    async fn buy(&self, path: &str, lines: &[&str]) -> Paid {
        self.shop.pay(&self.server.get(path, lines).await)
    }
}

/// Says in headers what a layer above the gate finds in the extensions.
async fn show_extensions(mut response: Response) -> Response {
    let refusal = response.extensions().get::<Refusal>().map(|refusal| refusal.code().to_owned());
    let cause = response.extensions().get::<Cause>().map(ToString::to_string);
    for (name, value) in [("x-refusal", refusal), ("x-cause", cause)] {
        if let Some(value) = value {
            let value = HeaderValue::try_from(value).unwrap();
            response.headers_mut().insert(HeaderName::from_static(name), value);
        }
    }
    response
}

/// A row of the table: path, header lines, HTTP status, gRPC status, code.
type Row = (&'static str, Vec<String>, u16, u8, &'static str);

#[allow(clippy::too_many_lines)] // the table
async fn table(site: &Site) -> Vec<Row> {
    let svc = site.buy("/svc", &[]).await;
    let gold = site.buy("/gold", &[]).await;
    let revoked = site.buy("/svc", &[]).await;
    site.shop.issuer.revoke(Revocation::Token(revoked.preimage.payment_hash())).await.unwrap();
    let spent = site.buy("/once", &[]).await;
    assert_eq!(site.server.get("/once", &[&spent.line()]).await.text(), "served");
    let cheap = site.buy("/priced/cheap", &[]).await;
    let bound = site.buy("/bound", &["X-Tenant: a"]).await;
    let outer = site.buy("/nested", &[]).await;
    let lent = site.buy("/lost-ledger", &[]).await;

    let foreign = |token_id: [u8; 32], version: u16| {
        let payment_hash = svc.preimage.payment_hash();
        let identifier = Identifier { version, payment_hash, token_id: token_id.into() };
        let token = mint(b"somebody else's root key", &identifier, ["services=svc:0"]).unwrap();
        vec![Paid { token, preimage: svc.preimage.clone() }.line()]
    };
    let mut ours = *svc.token.identifier().token_id.as_bytes();
    ours[31] ^= 1;
    let adding = |caveat: &str| vec![svc.attenuated(caveat).line()];
    let zeros = "00".repeat(32);
    vec![
        ("/svc", vec![], 402, 13, "missing_credential"),
        ("/svc", vec!["Authorization: Bearer x".into()], 402, 13, "missing_credential"),
        ("/svc", foreign([2; 32], 0), 402, 13, "unknown_format"),
        ("/svc", foreign(ours, 1), 402, 13, "unknown_format"),
        ("/svc", foreign([1; 32], 0), 402, 13, "unknown_key"),
        ("/svc", vec![revoked.line()], 402, 13, "revoked"),
        ("/once", vec![svc.line()], 402, 13, "wrong_service"),
        ("/svc", vec![gold.line()], 402, 13, "wrong_offer"),
        ("/svc", adding(&format!("svc_valid_until={NOW}")), 402, 13, "expired"),
        ("/once", vec![spent.line()], 402, 13, "used_up"),
        ("/gold", vec![svc.line()], 402, 13, "tier_too_low"),
        ("/write", vec![svc.line()], 402, 13, "missing_capability"),
        ("/priced/dear", vec![cheap.line()], 402, 13, "price_too_high"),
        ("/svc", adding("svc_method=PUT"), 402, 13, "wrong_method"),
        ("/svc", adding("weather=fine"), 402, 13, "unknown_caveat"),
        ("/svc", adding("no equals sign"), 402, 13, "unknown_caveat"),
        ("/svc", adding("services=svc:1"), 402, 13, "invalid_caveat"),
        ("/svc", adding("path_prefix=/other"), 402, 13, "condition_failed"),
        ("/bound", vec![bound.line(), "X-Tenant: b".into()], 402, 13, "condition_failed"),
        ("/svc", vec!["Authorization: L402 x".into()], 401, 16, "missing_preimage"),
        ("/svc", vec![format!("Authorization: L402 x,y:{zeros}")], 401, 16, "several_tokens"),
        ("/svc", vec![format!("Authorization: L402 !:{zeros}")], 401, 16, "malformed_token"),
        ("/svc", vec![format!("Authorization: L402 AgEE:{zeros}")], 401, 16, "malformed_macaroon"),
        ("/svc", vec!["Authorization: L402 AgEE:00".into()], 401, 16, "malformed_preimage"),
        ("/svc", vec![format!("Authorization: L402 {}", "A".repeat(9000))], 401, 16, "credential_too_long"),
        ("/svc", foreign(ours, 0), 401, 16, "bad_signature"),
        ("/svc", vec![svc.line().replace(&svc.preimage(), &zeros)], 401, 16, "wrong_preimage"),
        ("/svc", vec![svc.line(), gold.line()], 401, 16, "two_credentials"),
        ("/bound", vec![], 400, 3, "unbindable"),
        ("/svc", vec![format!("X-Tenant: {}", "x".repeat(257))], 400, 3, "unbindable"),
        ("/priced/none", vec![], 404, 3, "not_for_sale"),
        ("/priced/gone", vec![], 410, 3, "not_for_sale"),
        ("/priced/402", vec![], 400, 3, "not_for_sale"),
        ("/priced/500", vec![], 400, 3, "not_for_sale"),
        // Not for sale to whoever has a token, too.
        ("/priced/none", vec![cheap.line()], 404, 3, "not_for_sale"),
        ("/lost-node", vec![], 503, 14, "backend_unavailable"),
        ("/no-place", vec![], 503, 14, "busy"),
        ("/lost-ledger", vec![lent.line()], 503, 14, "ledger_unavailable"),
        ("/priced/down", vec![], 503, 14, "price_unavailable"),
        ("/priced/down", vec![cheap.line()], 503, 14, "price_unavailable"),
        ("/priced/zero", vec![], 500, 13, "price_failed"),
        ("/nested", vec![outer.line()], 500, 13, "nested_gate"),
        ("/no-ledger", vec![lent.line()], 500, 13, "misconfigured"),
    ]
}

fn cause_of(code: &str) -> Option<&'static str> {
    match code {
        "backend_unavailable" => Some("backend was not reached"),
        "ledger_unavailable" => Some("ledger is unavailable"),
        "price_unavailable" => Some("price is unavailable"),
        "price_failed" => Some("price could not be computed"),
        // Why the token that opened the outer gate does not open this one.
        "nested_gate" => Some("the token opens another service; buy one for this"),
        _ => None,
    }
}

fn cache_control_of(code: &str) -> &'static str {
    // The outer gate has admitted the request and settles the response.
    if code == "nested_gate" { "private, no-store" } else { "no-store" }
}

#[tokio::test]
async fn every_reason_has_its_status_headers_and_body() {
    let site = Site::open().await;
    let rows = table(&site).await;
    let calls = site.calls.load(Ordering::SeqCst);
    for (path, lines, status, _, code) in rows {
        for origin in [false, true] {
            let mut lines: Vec<_> = lines.iter().map(String::as_str).collect();
            if origin {
                lines.push("Origin: https://example.com");
            }
            let answer = site.server.get(path, &lines).await;
            let context = format!("{code} {path} {}", answer.text());
            assert_eq!(answer.status, status, "{context}");
            assert_eq!(answer.header("cache-control"), Some(cache_control_of(code)), "{context}");
            assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{context}");
            assert_eq!(answer.header("retry-after"), (status == 503).then_some("5"), "{context}");
            let exposed = origin.then_some("WWW-Authenticate, Retry-After");
            assert_eq!(answer.header("access-control-expose-headers"), exposed, "{context}");
            assert_eq!(answer.header("x-refusal"), Some(code), "{context}");
            assert_eq!(answer.header("x-cause"), cause_of(code), "{context}");
            assert!(!answer.text().contains("database") && !answer.text().contains("route to host"));

            let mut body = answer.json();
            let terms = body.as_object_mut().unwrap().remove("l402");
            let title = StatusCode::from_u16(status).unwrap();
            assert_eq!(body["detail"].as_str().map(str::is_empty), Some(false), "{context}");
            let expected = json!({
                "type": "about:blank", "title": title.canonical_reason(), "status": status,
                "detail": body["detail"], "code": code,
            });
            assert_eq!(body, expected);

            match status {
                402 => assert_is_sold(&answer, &terms.unwrap()),
                401 => assert_eq!(answer.header("www-authenticate"), Some("L402"), "{context}"),
                _ => assert_eq!(answer.header("www-authenticate"), None, "{context}"),
            }
            assert_eq!(status == 402, answer.text().contains("lnbcrt"), "{context}");
        }
    }
    assert_eq!(site.calls.load(Ordering::SeqCst), calls, "the handler saw none of them");
}

/// Header, body, token and invoice say the same.
fn assert_is_sold(answer: &Answer, terms: &Value) {
    let (token, bolt11) = (terms["token"].as_str().unwrap(), terms["invoice"].as_str().unwrap());
    let header = format!(r#"L402 macaroon="{token}", invoice="{bolt11}", version="0", token="{token}""#);
    assert_eq!(answer.all("www-authenticate"), [&*header]);
    let challenge = answer.challenge();
    let invoice: Bolt11Invoice = bolt11.parse().unwrap();
    let (pay_by, valid_until) = (terms["pay_by"].as_u64().unwrap(), terms["valid_until"].as_u64().unwrap());
    assert_eq!(invoice.amount_milli_satoshis(), terms["price_msat"].as_u64());
    assert_eq!(invoice.payment_hash().to_string(), terms["payment_hash"]);
    assert_eq!(challenge.token().identifier().payment_hash.to_string(), terms["payment_hash"]);
    assert_eq!(invoice.expires_at().unwrap().as_secs(), pay_by);
    let service = terms["service"].as_str().unwrap();
    let caveat = format!("{service}_valid_until={valid_until}");
    assert!(challenge.token().caveats().any(|bytes| bytes == caveat.as_bytes()), "{caveat}");
    assert!(terms["retry"].as_str().unwrap().contains("Authorization: L402 <token>:<preimage in hex>"));
    let offers = terms["offers"].as_array().unwrap();
    assert_eq!(offers[0]["id"], terms["offer"], "the first offer is the one that the invoice buys");
}

#[tokio::test]
async fn every_402_has_an_invoice_and_a_token_of_its_own() {
    let site = Site::open().await;
    let mut seen = std::collections::HashSet::new();
    for _ in 0..20 {
        let challenge = site.server.get("/svc", &[]).await.challenge();
        assert!(seen.insert(challenge.invoice().to_owned()));
        assert!(seen.insert(challenge.token().identifier().token_id.to_string()));
    }
}

#[tokio::test]
async fn the_body_lists_the_offers_that_open_the_gate() {
    let site = Site::open().await;
    let offers = |answer: &Answer| answer.json()["l402"]["offers"].clone();
    let basic = json!({
        "id": "default", "title": "A pass", "description": "Everything", "price_msat": 21_000,
        "seconds": 3600, "tier": 0, "capabilities": ["read", "list"], "also_opens": [],
    });
    let gold = json!({
        "id": "gold", "price_msat": 50_000, "seconds": 3600, "tier": 2, "capabilities": ["write"],
        "also_opens": [],
    });
    let uses = json!({
        "id": "default", "price_msat": 21_000, "uses": 5, "seconds": 30 * 86_400, "tier": 0,
        "capabilities": [], "also_opens": [],
    });
    assert_eq!(offers(&site.server.get("/svc", &[]).await), json!([basic]));
    assert_eq!(
        offers(&site.server.get("/gold", &[]).await),
        json!([gold]),
        "what does not open it is not listed"
    );
    assert_eq!(offers(&site.server.get("/write", &[]).await), json!([gold]));
    assert_eq!(offers(&site.server.get("/read", &[]).await), json!([uses]));
    let dear = site.server.get("/priced/dear", &[]).await;
    assert_eq!(offers(&dear)[0]["price_msat"], 30_000, "of this request");
}

#[tokio::test]
async fn a_grpc_call_is_answered_by_trailers_alone() {
    let site = Site::open().await;
    let rows = table(&site).await;
    let calls = site.calls.load(Ordering::SeqCst);
    for (path, lines, _, grpc, code) in rows {
        for (asked, answered) in [
            ("application/grpc", "application/grpc"),
            ("application/grpc+proto", "application/grpc"),
            ("application/grpc-web", "application/grpc-web+proto"),
            ("Application/gRPC-Web+proto", "application/grpc-web+proto"),
            ("application/grpc-web-text", "application/grpc-web-text+proto"),
        ] {
            let content_type = format!("Content-Type: {asked}");
            let mut lines: Vec<_> = lines.iter().map(String::as_str).collect();
            lines.extend([&*content_type, "Content-Length: 5", "TE: trailers"]);
            let answer = site.server.send_body(&format!("POST {path}"), &lines, &[0; 5]).await;
            assert_eq!(answer.status, 200, "{code} {path}");
            assert_eq!(answer.header("content-type"), Some(answered));
            assert_eq!(answer.header("grpc-status"), Some(&*grpc.to_string()), "{code} {path}");
            assert_eq!(answer.body, b"", "{code}");
            assert_eq!(answer.header("x-refusal"), Some(code));
            assert_eq!(answer.header("cache-control"), Some(cache_control_of(code)));
            assert_eq!(answer.header("retry-after"), (grpc == 14).then_some("5"), "{code}");
            let message = answer.header("grpc-message").unwrap();
            let is_sold = message == "payment required";
            match answer.all("www-authenticate")[..] {
                [challenge] if is_sold => {
                    assert_eq!(grpc, 13);
                    assert!(challenge.starts_with("L402 macaroon=\""));
                    site.shop.pay(&answer);
                }
                ["L402"] => assert_eq!(grpc, 16, "{code}"),
                [] => assert!(!matches!(grpc, 16) && !is_sold, "{code}"),
                ref other => panic!("{code}: {other:?}"),
            }
        }
    }
    assert_eq!(site.calls.load(Ordering::SeqCst), calls);
}

/// A page of another origin reads these headers if they are exposed.
#[tokio::test]
async fn a_browser_may_read_the_challenge_and_the_status() {
    let site = Site::open().await;
    for (content_type, exposed) in [
        ("application/json", "WWW-Authenticate, Retry-After"),
        ("application/grpc-web+proto", "WWW-Authenticate, Retry-After, grpc-status, grpc-message"),
    ] {
        let lines =
            [&*format!("Content-Type: {content_type}"), "Content-Length: 0", "Origin: https://a.example"];
        let answer = site.server.send("POST /svc", &lines).await;
        assert_eq!(answer.header("access-control-expose-headers"), Some(exposed), "{content_type}");
    }
}

#[tokio::test]
async fn only_a_post_of_grpc_is_answered_as_grpc() {
    let site = Site::open().await;
    for (method, content_type, is_grpc) in [
        ("POST", "application/grpc", true),
        ("GET", "application/grpc", false),
        ("PUT", "application/grpc+proto", false),
        ("POST", "application/json", false),
        ("POST", "text/application/grpc", false),
    ] {
        let lines = [&*format!("Content-Type: {content_type}"), "Content-Length: 0"];
        let answer = site.server.send(&format!("{method} /svc"), &lines).await;
        let got = (answer.status, answer.header("grpc-status"));
        assert_eq!(got, if is_grpc { (200, Some("13")) } else { (402, None) }, "{method} {content_type}");
    }
}

#[tokio::test]
async fn a_buyer_has_at_least_what_was_sold_and_30_seconds_to_pay() {
    for (lifetime, access, pay_in) in [
        (300, Access::pass(Duration::from_secs(1)), 30),
        (300, Access::pass(Duration::from_secs(29)), 30),
        (300, Access::pass(Duration::from_secs(30)), 30),
        (300, Access::pass(Duration::from_secs(31)), 31),
        (300, Access::pass(Duration::from_secs(60)), 60),
        (300, Access::pass(Duration::from_secs(299)), 299),
        (300, Access::pass(Duration::from_secs(300)), 300),
        (300, Access::pass(HOUR), 300),
        (300, Access::pass(36_500 * DAY), 300),
        (300, Access::once(), 300),
        (300, Access::uses(9).within(Duration::from_secs(10)), 30),
        (60, Access::pass(HOUR), 60),
        (60, Access::pass(Duration::from_secs(45)), 45),
        (60, Access::pass(Duration::from_secs(10)), 30),
        (10, Access::pass(HOUR), 10),
    ] {
        let shop = Shop::with(|builder| builder.with_challenge_lifetime(Duration::from_secs(lifetime)));
        let gate = Gate::new(&shop.issuer, "svc", Offer::new(Price::sat(1), access)).unwrap();
        let app = Router::new().route("/", get(|| async {}).route_layer(L402Layer::new(gate)));
        let server = serve(app).await;
        let answer = server.get("/", &[]).await;
        let terms = &answer.json()["l402"];
        assert_is_sold(&answer, terms);
        assert_eq!(terms["pay_by"], NOW + pay_in, "{lifetime} {access:?}");
        assert_eq!(terms["valid_until"], NOW + pay_in + access.duration().as_secs(), "{lifetime} {access:?}");

        // Paid in the last second, it lasts for what was sold.
        shop.clock.set(NOW + pay_in - 1);
        let paid = shop.pay(&answer);
        shop.clock.advance(access.duration());
        assert_eq!(server.get("/", &[&paid.line()]).await.status, 200, "{lifetime} {access:?}");
        shop.clock.advance(Duration::from_secs(1));
        assert_eq!(server.get("/", &[&paid.line()]).await.code(), "expired", "{lifetime} {access:?}");
    }
}

#[tokio::test]
async fn a_preflight_is_answered_without_payment_and_without_the_handler() {
    let site = Site::open().await;
    let preflight = ["Origin: https://example.com", "Access-Control-Request-Method: GET"];
    let answer = site.server.send("OPTIONS /svc", &preflight).await;
    assert_eq!((answer.status, &*answer.body), (204, &b""[..]));
    assert_eq!(answer.header("www-authenticate"), None);
    assert_eq!(answer.header("x-refusal"), None);
    assert_eq!(site.calls.load(Ordering::SeqCst), 0);
    assert_eq!(site.shop.wallet.payments(), 0);

    // For a CORS layer below the gate.
    let answer = site.server.send("OPTIONS /preflight", &preflight).await;
    assert_eq!((answer.status, answer.text()), (200, "served"));
    assert_eq!(site.calls.load(Ordering::SeqCst), 1);
}

/// No browser sends a credential with a preflight; others might.
#[tokio::test]
async fn a_forwarded_preflight_carries_no_credential() {
    let shop = Shop::new();
    let gate = |name| Gate::builder(&shop.issuer, name, Offer::new(Price::sat(1), Access::pass(HOUR)));
    let (taken, kept) = (gate("taken").build().unwrap(), gate("kept").forward_credential().build().unwrap());
    let echo = any(|headers: HeaderMap| async move {
        let lines = headers.get_all("authorization").iter().map(|value| value.to_str().unwrap().to_owned());
        lines.collect::<Vec<_>>().join("|")
    });
    let value = taken.test_credential().to_str().unwrap().to_owned();
    let app = Router::new()
        .route("/taken", echo.clone().layer(L402Layer::new(taken).forward_preflight()))
        .route("/kept", echo.layer(L402Layer::new(kept).forward_preflight()));
    let server = serve(app).await;
    let line = format!("Authorization: {value}");
    let lines = ["Origin: a", "Access-Control-Request-Method: GET", "Authorization: Bearer x", &line];
    assert_eq!(server.send("OPTIONS /taken", &lines).await.text(), "Bearer x");
    assert_eq!(server.send("OPTIONS /kept", &lines).await.text(), "Bearer x");

    // Where it cannot be told what to take, nothing is left.
    for unclear in ["Authorization: L402 a:b, L402 c:d", "Authorization: L402 a, b:c"] {
        let lines = [&lines[..], &[unclear]].concat();
        assert_eq!(server.send("OPTIONS /taken", &lines).await.text(), "", "{unclear}");
    }
}

#[tokio::test]
async fn what_is_no_preflight_is_not_free() {
    let site = Site::open().await;
    let (origin, method) = ("Origin: https://example.com", "Access-Control-Request-Method: GET");
    for (request, lines) in [
        ("OPTIONS", vec![]),
        ("OPTIONS", vec![origin]),
        ("OPTIONS", vec![method]),
        ("GET", vec![origin, method]),
        ("POST", vec![origin, method, "Content-Length: 0"]),
        ("HEAD", vec![origin, method]),
        ("PROPFIND", vec![]),
    ] {
        for path in ["/svc", "/preflight"] {
            let answer = site.server.send(&format!("{request} {path}"), &lines).await;
            assert_eq!(answer.status, 402, "{request} {path} {lines:?}");
        }
    }
    assert_eq!(site.calls.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn head_is_gated_like_get() {
    let site = Site::open().await;
    for path in ["/svc", "/read"] {
        let (head, get) =
            (site.server.send(&format!("HEAD {path}"), &[]).await, site.server.get(path, &[]).await);
        assert_eq!((head.status, &*head.body), (402, &b""[..]), "{path}");
        assert_eq!(head.header("content-type"), get.header("content-type"));
        assert!(head.challenge().invoice().starts_with("lnbcrt"));
    }
    let paid = site.buy("/read", &[]).await;
    let answer = site.server.send("HEAD /read", &[&paid.line()]).await;
    assert_eq!((answer.status, &*answer.body), (200, &b""[..]));
    let account = site.shop.issuer.account(paid.preimage.payment_hash()).await.unwrap().unwrap();
    assert_eq!(account.used, 1, "HEAD costs a use");
}

/// Not a row of the table: the whole way over a socket, with time running.
#[tokio::test]
async fn a_node_that_hangs_is_a_503_on_the_wire() {
    #[derive(Debug)]
    struct Hanging;
    #[async_trait]
    impl PaymentBackend for Hanging {
        fn capabilities(&self) -> Capabilities {
            Capabilities::node(Network::Regtest)
        }
        async fn create_invoice(&self, _: &InvoiceRequest) -> Result<Invoice, BackendError> {
            std::future::pending().await
        }
    }
    let issuer = Issuer::builder(KeyRing::new(RootKey::generate()), Hanging)
        .with_network(Network::Regtest)
        .with_invoice_limits(1, Duration::from_millis(5))
        .build()
        .unwrap();
    let gate = Gate::new(&issuer, "svc", Offer::new(Price::sat(1), Access::pass(HOUR))).unwrap();
    let server = serve(Router::new().route("/", get(|| async {}).route_layer(L402Layer::new(gate)))).await;
    let answer = server.get("/", &[]).await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("5")));
    assert_eq!(answer.code(), "backend_unavailable");
}

/// A server whose clock and ledger are the machine's, as a user has it.
#[tokio::test]
async fn the_system_clock_and_a_fresh_key_do_as_well() {
    let wallet = DevBackend::new();
    let issuer = Issuer::builder(KeyRing::new(RootKey::generate()), wallet.clone())
        .with_network(Network::Regtest)
        .with_ledger(MemoryLedger::new())
        .build()
        .unwrap();
    let gate = Gate::new(&issuer, "svc", Offer::new(Price::sat(21), Access::uses(2).within(DAY))).unwrap();
    let server =
        serve(Router::new().route("/", get(|| async { "paid" }).route_layer(L402Layer::new(gate)))).await;
    let answer = server.get("/", &[]).await;
    let challenge = answer.challenge();
    let preimage = wallet.pay(challenge.invoice()).unwrap();
    let line = format!("Authorization: {}", challenge.token().credential(&preimage).to_str().unwrap());
    for _ in 0..2 {
        assert_eq!(server.get("/", &[&line]).await.text(), "paid");
    }
    assert_eq!(server.get("/", &[&line]).await.code(), "used_up");
}
