//! The log (feature `tracing`): its lines, fields and levels, and that no client
//! can flood it.

#![cfg(feature = "tracing")]
#![allow(missing_docs)]

#[path = "support/faults.rs"]
mod faults;
#[path = "support/svc.rs"]
mod svc;

use std::cell::RefCell;
use std::fmt::{self, Write as _};
use std::sync::Once;
use std::time::Duration;

use faults::{Fault, FaultyLedger, Op};
use http::StatusCode;
use l402::{Access, Gate, HOUR, MINUTE, Offer, PeerAddr, Price, PriceError};
use svc::{Paid, Shop, call, inner, ok, request};
use tracing::field::{Field, Visit};
use tracing::{Event, Id, Level, Metadata, Subscriber, span};

thread_local! {
    /// Every line and span of the target `l402` on this thread, which is a test's
    /// own, with its level and its fields.
    static LINES: RefCell<Vec<(Level, String)>> = const { RefCell::new(Vec::new()) };
}

/// The subscriber of the process: one for each test would turn off for another
/// what its own thread meets first.
struct Log;

impl Log {
    fn take() -> Vec<(Level, String)> {
        LINES.take()
    }

    /// How many lines stand above debug, and the first of them.
    fn loud() -> (usize, Option<(Level, String)>) {
        let loud: Vec<_> = Self::take().into_iter().filter(|(level, _)| *level < Level::DEBUG).collect();
        (loud.len(), loud.into_iter().next())
    }
}

fn write(metadata: &Metadata<'_>, record: impl FnOnce(&mut Fields)) {
    let mut fields = Fields::default();
    record(&mut fields);
    if metadata.target() == "l402" {
        let line = format!("{}{}", fields.message, fields.others);
        LINES.with_borrow_mut(|lines| lines.push((*metadata.level(), line)));
    }
}

#[derive(Default)]
struct Fields {
    message: String,
    others: String,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            // Times and hashes differ from run to run.
            "latency_us" | "payment_hash" => write!(self.others, " {}", field.name()).unwrap(),
            name => write!(self.others, " {name}={value:?}").unwrap(),
        }
    }
}

impl Subscriber for Log {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &span::Attributes<'_>) -> Id {
        write(span.metadata(), |fields| {
            fields.message = format!("span {}", span.metadata().name());
            span.record(fields);
        });
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        write(event.metadata(), |fields| event.record(fields));
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

fn listen() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| tracing::subscriber::set_global_default(Log).unwrap());
}

#[tokio::test]
async fn a_purchase_and_its_use_are_logged_for_debugging() {
    listen();
    let shop = Shop::new();
    let gate = shop.gate("bought", Access::uses(3).within(HOUR));
    let credential = Paid::buy(&shop, &gate).await.credential();
    call(&mut ok().behind(&gate), request(Some(&credential))).await.unwrap();
    let expected = [
        (Level::DEBUG, r#"span l402 service="bought" step="sell""#),
        (Level::TRACE, r#"backend call call="create_invoice" outcome="ok" latency_us"#),
        (Level::DEBUG, r#"refused service="bought" code="missing_credential""#),
        (
            Level::DEBUG,
            r#"challenge service="bought" offer="default" amount_msat=21000 payment_hash is_repeated=false"#,
        ),
        (Level::DEBUG, r#"span l402 service="bought" step="decide""#),
        (Level::TRACE, r#"ledger call call="reserve" outcome="ok" latency_us"#),
        (
            Level::DEBUG,
            r#"admitted service="bought" offer="default" basis="preimage" units=1 remaining=2 worth_msat=7000"#,
        ),
        (Level::DEBUG, r#"settled service="bought" units=1 charged=true"#),
        (Level::TRACE, r#"ledger call call="commit" outcome="ok" latency_us"#),
    ];
    assert_eq!(Log::take(), expected.map(|(level, line)| (level, line.to_owned())));
}

/// What anybody can cause as often as they like: the first line and no more.
#[tokio::test(start_paused = true)]
async fn a_thousand_refusals_are_one_loud_line_in_ten_seconds() {
    listen();
    let ledger = FaultyLedger::new();
    let shop = Shop::with_ledger(ledger.clone());
    let failing = |name: &str, error: fn() -> PriceError| {
        Gate::new(&shop.issuer, name, Offer::priced(move |_| Err(error()), Access::once())).unwrap()
    };
    let metered = shop.gate("flooded-ledger", Access::uses(3));
    let rated = shop.gate("flooded-rate", Access::pass(HOUR).rate(1, MINUTE));
    let (counted, pass) = (Paid::buy(&shop, &metered).await, Paid::buy(&shop, &rated).await);
    call(&mut ok().behind(&rated), request(Some(&pass.credential()))).await.unwrap();
    ledger.set(Op::Reserve, Some(Fault::Error));
    Log::take();

    let rows = [
        (
            failing("flooded-price", || PriceError::failed("a bug")),
            None,
            Level::ERROR,
            r#"refused service="flooded-price" code="price_failed" cause="price could not be computed: a bug""#,
        ),
        (
            failing("flooded-source", || PriceError::unavailable("down")),
            None,
            Level::WARN,
            r#"refused service="flooded-source" code="price_unavailable" cause="price is unavailable: down""#,
        ),
        (
            rated,
            Some(pass.credential()),
            Level::INFO,
            r#"limit hit service="flooded-rate" limit="pass_rate""#,
        ),
    ];
    for (gate, credential, level, line) in rows {
        for more in [0, 999] {
            for _ in 0..1_000 {
                call(&mut ok().behind(&gate), request(credential.as_ref())).await.unwrap();
            }
            let expected = (1, Some((level, format!("{line} more={more}"))));
            assert_eq!(Log::loud(), expected);
            tokio::time::advance(Duration::from_secs(10)).await;
        }
    }

    // The ledger's own line and the refusal's.
    for _ in 0..1_000 {
        call(&mut ok().behind(&metered), request(Some(&counted.credential()))).await.unwrap();
    }
    let loud: Vec<_> = Log::take().into_iter().filter(|(level, _)| *level < Level::DEBUG).collect();
    let cause = r#"cause="ledger is unavailable: store is down" more=0"#;
    assert_eq!(
        loud,
        [
            (Level::WARN, format!(r#"ledger call call="reserve" outcome="error" latency_us {cause}"#)),
            (Level::WARN, format!(r#"refused service="flooded-ledger" code="ledger_unavailable" {cause}"#)),
        ]
    );
}

#[tokio::test]
async fn what_clients_do_wrong_is_never_loud() {
    listen();
    let shop = Shop::new();
    let gate = shop.gate("quiet", Access::once());
    let unsold = Offer::priced(|_| Err(PriceError::reject(StatusCode::NOT_FOUND)), Access::once());
    let unsold = Gate::new(&shop.issuer, "unsold", unsold).unwrap();
    let paid = Paid::buy(&shop, &gate).await;
    let expired = paid.with_caveat("quiet_valid_until=1");
    for (gate, credential) in [
        (&gate, None),
        (&unsold, None),
        (&gate, Some("L402 x".parse().unwrap())),
        (&gate, Some(expired.credential())),
        (&gate, Some(paid.credential())),
        (&gate, Some(paid.credential())),
    ] {
        call(&mut ok().behind(gate), request(credential.as_ref())).await.unwrap();
    }
    assert_eq!(Log::loud(), (0, None));
}

#[tokio::test]
async fn a_gate_in_dry_run_says_so_when_it_is_built_and_logs_what_it_would_refuse() {
    listen();
    let shop = Shop::new();
    let offer = Offer::new(Price::sat(1), Access::once());
    let gate = Gate::builder(&shop.issuer, "dry", offer).dangerous_dry_run().build().unwrap();
    assert_eq!(Log::take(), [(Level::WARN, r#"dry run service="dry""#.to_owned())]);
    let free = inner(|_| http::Response::new(String::new()));
    call(&mut free.behind(&gate), request(None)).await.unwrap();
    let expected = [
        r#"would have refused service="dry" code="missing_credential""#,
        r#"admitted service="dry" basis="dry_run" units=0"#,
    ];
    assert_eq!(Log::take(), expected.map(|line| (Level::DEBUG, line.to_owned())));
}

/// As a proxy makes it, that nobody named: its clients share one limit.
#[tokio::test]
async fn where_all_challenges_come_from_one_address_it_is_named_once() {
    listen();
    let ask = async |gate: &Gate, last: u8| {
        let mut request = request(None);
        request.extensions_mut().insert(PeerAddr(([192, 0, 2, last], 4711).into()));
        let status = call(&mut ok().behind(gate), request).await.unwrap().status();
        assert!([402, 429].contains(&status.as_u16()), "{status}");
    };
    let shop = Shop::new();
    let gate = shop.gate("proxied", Access::pass(HOUR));
    for n in 0..1_200_u32 {
        // Two clients, in turns.
        ask(&gate, if n % 2 == 0 { 1 } else { 2 }).await;
    }
    let of_address = |(_, line): &(Level, String)| line.contains("came from one address");
    assert!(!Log::take().iter().any(of_address));
    for _ in 0..1_500 {
        ask(&gate, 7).await;
    }
    let said: Vec<_> = Log::take().into_iter().filter(of_address).collect();
    let [(Level::WARN, line)] = &said[..] else { panic!("one line: {said:?}") };
    assert!(line.contains("192.0.2.7") && line.contains("with_trusted_proxies"), "{line}");
}

#[test]
fn what_goes_to_standard_error_without_a_log_goes_to_the_log() {
    listen();
    let _ = l402::Issuer::dev(&l402::DevBackend::new());
    let (n, line) = Log::loud();
    let (level, line) = line.unwrap();
    assert_eq!((n, level), (1, Level::WARN));
    assert!(line.starts_with("development issuer: regtest play money"), "{line}");
}

#[tokio::test]
async fn a_handler_without_a_gate_is_an_error() {
    use axum::response::IntoResponse as _;

    listen();
    for _ in 0..10 {
        assert_eq!(l402::MissingGate.into_response().status(), 500);
    }
    let (n, line) = Log::loud();
    let (level, line) = line.unwrap();
    assert_eq!((n, level), (1, Level::ERROR));
    assert!(
        line.starts_with("handler without a gate cause=\"handler extracts a `Grant` but no gate"),
        "{line}"
    );
}

/// The table of the documentation names every field of every line.
#[test]
fn the_table_is_what_there_is() {
    let code = include_str!("../src/log.rs");
    let docs = include_str!("../src/event.rs");
    for part in code.split("line!(").skip(1).filter(|part| !part.starts_with('$')) {
        let call = part.split(");\n").next().unwrap();
        let Some((_, rest)) = call.split_once('"') else { continue };
        let (message, fields) = rest.split_once('"').unwrap();
        let row = docs.lines().find(|line| line.starts_with(&format!("//! | `{message}` |")));
        let row = row.unwrap_or_else(|| panic!("no row for {message}"));
        let listed: Vec<_> =
            row.rsplit('|').nth(1).unwrap().split(", ").map(|name| name.trim().trim_matches('`')).collect();
        let written: Vec<_> = fields
            .split(',')
            .map(|field| field.trim().trim_start_matches('%').split(" =").next().unwrap())
            .filter(|field| !field.is_empty())
            .collect();
        assert_eq!(listed, written, "{message}");
    }
}
