//! The metrics (feature `metrics`), as Prometheus reads them from the endpoint of
//! the example, and the dashboard that draws them.

#![cfg(all(feature = "metrics", feature = "tracing"))]
#![allow(missing_docs)]

#[allow(dead_code)] // its own main and customers
#[path = "../examples/observability.rs"]
mod example;
#[path = "support/market.rs"]
mod market;
#[path = "support/wire.rs"]
mod wire;

use std::collections::BTreeSet;
use std::sync::Mutex;

use async_trait::async_trait;
use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use l402::checkout::{CheckoutConfig, SignedWebhook};
use l402::metrics::{ALL, Kind, Metric};
use l402::{
    Access, BackendError, Capabilities, Clock as _, DAY, DevBackend, Gate, GateBuilder, HOUR, Invoice,
    InvoiceRequest, InvoiceState, Issuer, KeyRing, L402Layer, LookUpBy, MINUTE, MemoryLedger, Network, Offer,
    PaymentBackend, PaymentHash, Price, RootKey, SystemClock,
};
use market::Market;
use serde_json::Value;
use wire::{Paid, Server, serve};

/// A custodian, which has to be asked what was paid, and fails where it is told to.
#[derive(Debug)]
struct Bank {
    wallet: DevBackend,
    fails: std::sync::Arc<Mutex<bool>>,
}

#[async_trait]
impl PaymentBackend for Bank {
    fn capabilities(&self) -> Capabilities {
        Capabilities::custodian(Network::Regtest).with_look_up(LookUpBy::PaymentHash)
    }

    async fn create_invoice(&self, ask: &InvoiceRequest) -> Result<Invoice, BackendError> {
        if *self.fails.lock().unwrap() {
            return Err(BackendError::connect("down"));
        }
        self.wallet.create_invoice(ask).await
    }

    async fn look_up(&self, _: PaymentHash, _: Option<&str>) -> Result<InvoiceState, BackendError> {
        Ok(InvoiceState::Settled)
    }
}

async fn buy(server: &Server, wallet: &DevBackend, path: &str) -> Paid {
    let answer = server.get(path, &[]).await;
    assert_eq!(answer.status, 402, "{}", answer.text());
    let challenge = answer.challenge();
    let preimage = wallet.pay(challenge.invoice()).unwrap();
    Paid { token: challenge.token().clone(), preimage }
}

/// What a gateway tells of an order of another server.
async fn settled_elsewhere() -> String {
    let elsewhere = Market::new(MemoryLedger::new()).await;
    elsewhere.choose("credits", "onchain").await;
    Market::settled(&elsewhere.onchain.last(), "p").to_string()
}

async fn tell(server: &Server, webhook: &str) {
    let signature = market::secret().sign(webhook.as_bytes(), SystemClock.now());
    let signature = format!("L402-Signature: {}", signature.to_str().unwrap());
    let length = format!("Content-Length: {}", webhook.len());
    let told = server.send_body("POST /l402/webhooks/card", &[&signature, &length], webhook.as_bytes()).await;
    assert_eq!(told.status, 200, "{}", told.text());
}

/// The value of a series, as it stands on the endpoint.
fn value(metrics: &str, series: &str) -> Option<f64> {
    metrics.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

/// The recorder belongs to the process, so that this is one test: every metric,
/// with the values that the requests come to, its type and its labels.
#[tokio::test]
async fn every_metric_stands_on_the_endpoint_with_what_the_requests_come_to() {
    // Before anything is counted.
    let foreign = settled_elsewhere().await;
    let handle = example::record().unwrap();
    let wallet = DevBackend::new();
    let fails = std::sync::Arc::<Mutex<bool>>::default();
    let card = SignedWebhook::new("card", "Card", "http://127.0.0.1:9/", market::secret()).unwrap();
    let issuer = Issuer::builder(
        KeyRing::new(RootKey::generate()),
        Bank { wallet: wallet.clone(), fails: fails.clone() },
    )
    .with_network(Network::Regtest)
    .with_ledger(MemoryLedger::new())
    .with_checkout(CheckoutConfig::new("http://127.0.0.1/l402").add_method(card))
    .build()
    .unwrap();
    let gate = |name, access| Gate::builder(&issuer, name, Offer::new(Price::sat(21), access));
    let layer = |gate: GateBuilder| L402Layer::new(gate.build().unwrap());
    let app = Router::new()
        .route("/counted", get(async || "").route_layer(layer(gate("counted", Access::uses(10).within(DAY)))))
        .route(
            "/broken",
            get(async || StatusCode::BAD_GATEWAY).route_layer(layer(gate("broken", Access::uses(10)))),
        )
        .route(
            "/rated",
            get(async || "").route_layer(layer(gate("rated", Access::pass(HOUR).rate(1, MINUTE)))),
        )
        .route("/dry", get(async || "").route_layer(layer(gate("dry", Access::once()).dangerous_dry_run())))
        .route(
            "/ready",
            get(async || "").route_layer(layer(gate("ready", Access::uses(10)).with_invoice_pool(5))),
        )
        .nest("/l402", issuer.checkout().unwrap().router())
        .merge(example::metrics(handle.clone()));
    let server = serve(app).await;

    let counted = buy(&server, &wallet, "/counted").await;
    for _ in 0..3 {
        assert_eq!(server.get("/counted", &[&counted.line()]).await.status, 200);
    }
    assert_eq!(server.get("/counted", &["Authorization: L402 x:y"]).await.status, 401);
    let broken = buy(&server, &wallet, "/broken").await;
    assert_eq!(server.get("/broken", &[&broken.line()]).await.status, 502);
    let rated = buy(&server, &wallet, "/rated").await;
    assert_eq!(server.get("/rated", &[&rated.line()]).await.status, 200);
    assert_eq!(server.get("/rated", &[&rated.line()]).await.status, 429);
    assert_eq!(server.get("/dry", &[]).await.status, 200);
    assert_eq!(server.get("/ready", &[]).await.status, 402);
    // Two more are made in tasks of their own.
    for _ in 0..1_000 {
        if value(&handle.render(), r#"l402_pool_invoices{service="ready",offer="default"}"#) == Some(2.0) {
            break;
        }
        tokio::task::yield_now().await;
    }
    tell(&server, &foreign).await;
    *fails.lock().unwrap() = true;
    assert_eq!(server.get("/counted", &[]).await.status, 503);

    let answer = server.get("/metrics", &[]).await;
    assert_eq!(answer.status, 200);
    let metrics = answer.text();
    for (series, expected) in [
        (r#"l402_challenges_total{service="counted",offer="default"}"#, 1.0),
        (r#"l402_billed_msat_total{service="counted",offer="default"}"#, 21_000.0),
        (r#"l402_admissions_total{service="counted",offer="default",basis="preimage"}"#, 3.0),
        (r#"l402_admissions_total{service="rated",offer="default",basis="preimage"}"#, 1.0),
        (r#"l402_admissions_total{service="dry",offer="",basis="dry_run"}"#, 1.0),
        (r#"l402_admitted_msat_total{service="counted",offer="default"}"#, 6_300.0),
        (r#"l402_admitted_msat_total{service="broken",offer="default"}"#, 2_100.0),
        (r#"l402_refusals_total{service="counted",code="missing_credential"}"#, 1.0),
        (r#"l402_refusals_total{service="counted",code="malformed_preimage"}"#, 1.0),
        (r#"l402_refusals_total{service="counted",code="backend_unavailable"}"#, 1.0),
        (r#"l402_refusals_total{service="rated",code="rate_limited"}"#, 1.0),
        (r#"l402_dry_run_refusals_total{service="dry",code="missing_credential"}"#, 1.0),
        (r#"l402_settlements_total{service="counted",outcome="charged"}"#, 3.0),
        (r#"l402_settlements_total{service="broken",outcome="given_back"}"#, 1.0),
        (r#"l402_payments_total{method="card",outcome="unknown_order"}"#, 1.0),
        (r#"l402_limit_hits_total{service="rated",limit="pass_rate"}"#, 1.0),
        (r#"l402_pool_invoices{service="ready",offer="default"}"#, 2.0),
        (r#"l402_look_ups_total{state="settled"}"#, 3.0),
        (r#"l402_backend_seconds_count{call="create_invoice",outcome="ok"}"#, 6.0),
        (r#"l402_backend_seconds_count{call="create_invoice",outcome="connect"}"#, 1.0),
        (r#"l402_backend_seconds_count{call="look_up",outcome="ok"}"#, 3.0),
        (r#"l402_ledger_seconds_count{call="reserve",outcome="ok"}"#, 4.0),
        (r#"l402_ledger_seconds_count{call="commit",outcome="ok"}"#, 3.0),
        (r#"l402_ledger_seconds_count{call="release",outcome="ok"}"#, 1.0),
    ] {
        assert_eq!(value(metrics, series), Some(expected), "{series} in\n{metrics}");
    }
    assert_eq!(value(metrics, r#"l402_admitted_msat_total{service="rated",offer="default"}"#), None);

    as_described(metrics);
    for secret in [counted.preimage(), counted.base64(), broken.preimage()] {
        assert!(!metrics.contains(&secret));
    }
}

/// Every metric stands there with its type and labels, and no other does.
fn as_described(metrics: &str) {
    for Metric { name, kind, labels, help, .. } in ALL {
        let kind = format!("{kind:?}").to_lowercase();
        for line in [format!("# TYPE {name} {kind}"), format!("# HELP {name} {help}")] {
            assert!(metrics.lines().any(|other| other == line), "{line} in\n{metrics}");
        }
        let suffix = if kind == "histogram" { "_count" } else { "" };
        let begin = format!("{name}{suffix}{{");
        let series = metrics.lines().filter_map(|line| line.strip_prefix(&begin));
        for series in series {
            let names: Vec<_> = series.split(',').map(|label| label.split('=').next().unwrap()).collect();
            assert_eq!(names, labels, "{name}");
        }
    }
    let names: BTreeSet<_> =
        metrics.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    assert_eq!(names, ALL.iter().map(|metric| metric.name).collect(), "no others");
}

/// All texts of a JSON document.
fn texts(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::String(text) => found.push(text.clone()),
        Value::Array(values) => values.iter().for_each(|value| texts(value, found)),
        Value::Object(members) => members.values().for_each(|value| texts(value, found)),
        _ => {}
    }
}

/// The words of an expression: names of metrics, labels and functions.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

#[test]
fn the_dashboard_draws_every_metric_and_no_other() {
    let dashboard: Value =
        serde_json::from_str(include_str!("../examples/observability/dashboard.json")).unwrap();
    let mut found = Vec::new();
    texts(&dashboard, &mut found);
    let drawn: BTreeSet<_> =
        found.iter().flat_map(|text| words(text)).filter(|word| word.starts_with("l402_")).collect();
    let series = |metric: &Metric| match metric.kind {
        Kind::Counter | Kind::Gauge => vec![metric.name.to_owned()],
        _ => ["_bucket", "_count"].map(|suffix| format!("{}{suffix}", metric.name)).to_vec(),
    };
    let known: Vec<_> = ALL.iter().flat_map(series).collect();
    assert_eq!(drawn, known.iter().map(String::as_str).collect());
}

/// What Grafana needs of a dashboard, and labels that the metrics have.
#[test]
fn every_panel_asks_for_labels_that_its_metrics_have() {
    let dashboard: Value =
        serde_json::from_str(include_str!("../examples/observability/dashboard.json")).unwrap();
    for member in ["title", "uid", "schemaVersion", "templating", "time", "panels"] {
        assert!(!dashboard[member].is_null(), "{member}");
    }
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len(), "each panel has an id of its own");
    for panel in panels {
        for member in ["title", "type", "gridPos", "datasource", "targets"] {
            assert!(!panel[member].is_null(), "{member} of {panel}");
        }
        for target in panel["targets"].as_array().unwrap() {
            let expr = target["expr"].as_str().unwrap();
            let metric = ALL.iter().find(|metric| words(expr).any(|word| word.starts_with(metric.name)));
            let metric = metric.unwrap_or_else(|| panic!("no metric in {expr}"));
            let by = expr.split(" by (").skip(1).flat_map(|rest| words(rest.split(')').next().unwrap()));
            let legend = target["legendFormat"].as_str().unwrap();
            let shown = legend.split("{{").skip(1).map(|rest| rest.split("}}").next().unwrap());
            let matched = expr.split('{').skip(1).map(|rest| rest.split(['=', '!']).next().unwrap());
            for label in by.chain(shown).chain(matched).filter(|label| *label != "le") {
                assert!(metric.labels.contains(&label), "{label} in {expr}");
            }
        }
    }
}
