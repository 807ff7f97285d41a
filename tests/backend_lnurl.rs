//! `LnurlBackend` against a provider in process: one that keeps its promises,
//! and one that does not.
#![cfg(feature = "lnurl")]

mod support {
    pub(crate) mod lnurl_server;
    pub(crate) mod sale;
}

use std::convert::Infallible;
use std::error::Error as _;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::response::{IntoResponse as _, Redirect, Response};
use bitcoin::bech32::{self, Bech32, Hrp};
use http::header::WWW_AUTHENTICATE;
use l402::{
    Access, BackendError, BackendErrorKind, Capabilities, Cause, Challenge, ErrorKind, Gate, HOUR,
    InvoiceState, Issuer, KeyRing, LnurlBackend, LnurlConfig, LookUpBy, MemoryLedger, Network, Offer,
    PaymentBackend, PaymentHash, Preimage, Price, Refusal, RootKey, conformance,
};
use lightning_invoice::Bolt11Invoice;
use serde_json::{Value, json};
use support::lnurl_server::{Provider, Step, hash_of};
use support::sale::{Wallet, buy, get};
use tokio::net::TcpListener;

impl Wallet for Provider {
    fn pay(&self, bolt11: &str) -> Preimage {
        Provider::pay(self, bolt11)
    }
}

/// Whoever knows the preimage and has not paid.
struct Thief<'a>(&'a Provider);

impl Wallet for Thief<'_> {
    fn pay(&self, bolt11: &str) -> Preimage {
        self.0.preimage(bolt11)
    }
}

fn config(address: &str) -> LnurlConfig {
    LnurlConfig::new(address, Network::Regtest)
}

fn gate(config: LnurlConfig, price: Price) -> Gate {
    let issuer = Issuer::builder(KeyRing::new(RootKey::generate()), LnurlBackend::new(config).unwrap())
        .with_network(Network::Regtest)
        .with_ledger(MemoryLedger::new())
        .build()
        .unwrap();
    Gate::new(&issuer, "forecast", Offer::new(price, Access::uses(3).within(HOUR))).unwrap()
}

/// What the gate sells, or why the backend made no invoice.
async fn sell(gate: &Gate) -> Result<Challenge, (BackendErrorKind, String)> {
    let response = gate.admit(&mut get("/")).await.unwrap_err();
    if let Some(cause) = response.extensions().get::<Cause>() {
        assert_eq!(response.status(), 503);
        let error: &BackendError = cause.error().downcast_ref().unwrap();
        return Err((error.kind(), shown(error)));
    }
    Ok(response.headers()[WWW_AUTHENTICATE].to_str().unwrap().parse().unwrap())
}

fn shown(error: &BackendError) -> String {
    format!("{error}: {} {error:?}", error.source().map(ToString::to_string).unwrap_or_default())
}

fn handle(challenge: &Challenge) -> Option<String> {
    let caveats = challenge.token().caveats().map(|caveat| String::from_utf8(caveat.to_vec()).unwrap());
    caveats.into_iter().find_map(|caveat| caveat.strip_prefix("invoice_handle=").map(str::to_owned))
}

fn amount(challenge: &Challenge) -> u64 {
    challenge.invoice().parse::<Bolt11Invoice>().unwrap().amount_milli_satoshis().unwrap()
}

/// A port where nobody has business, and how often somebody came.
async fn trap() -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (port, visits) = (listener.local_addr().unwrap().port(), Arc::new(AtomicUsize::new(0)));
    let count = visits.clone();
    tokio::spawn(async move {
        while listener.accept().await.is_ok() {
            count.fetch_add(1, Ordering::SeqCst);
        }
    });
    (port, visits)
}

#[tokio::test]
async fn what_was_paid_for_is_admitted_and_a_preimage_alone_is_not() {
    let provider = Provider::start().await;
    let gate = gate(config(&provider.address()), Price::sat(21));

    let stolen = buy(&gate, &Thief(&provider), get("/")).await;
    let refusal = stolen.admit(&gate, &get("/")).await.unwrap_err();
    assert!(matches!(refusal, Refusal::PaymentPending { .. }), "{refusal:?}");

    let paid = buy(&gate, &provider, get("/")).await;
    assert!(paid.grant(&gate, &get("/")).await.unwrap().is_paid());
    let verify = format!("/verify/{}", paid.hash());
    assert!(paid.caveats().contains(&format!("invoice_handle={}", provider.url(&verify))));
    assert!(paid.admit(&gate, &get("/")).await.is_ok());
    let asked = provider.requests().into_iter().filter(|request| *request == verify).count();
    assert_eq!(asked, 1, "a payment is asked about once");
}

#[tokio::test]
async fn every_form_of_an_address_leads_to_the_provider() {
    let provider = Provider::start().await;
    let url = provider.url("/.well-known/lnurlp/shop");
    let bech32 = bech32::encode::<Bech32>(Hrp::parse("lnurl").unwrap(), url.as_bytes()).unwrap();
    for address in [
        provider.address(),
        url.clone(),
        url.replace("http:", "lnurlp:"),
        bech32.clone(),
        format!("lightning:{}", bech32.to_uppercase()),
    ] {
        let gate = gate(config(&address), Price::sat(21));
        assert_eq!(amount(&sell(&gate).await.unwrap()), 21_000, "{address}");
    }
}

#[tokio::test]
async fn amounts_are_whole_satoshis_unless_the_provider_bills_msat() {
    let provider = Provider::start().await;
    let address = provider.address();
    for (config, billed) in [(config(&address), 22_000), (config(&address).with_msat(), 21_001)] {
        let challenge = sell(&gate(config, Price::msat(21_001))).await.unwrap();
        assert_eq!(amount(&challenge), billed);
        let callback = provider.requests().pop().unwrap();
        assert_eq!(callback, format!("/cb?amount={billed}"));
    }
}

#[tokio::test]
async fn an_amount_that_the_provider_does_not_take_is_not_asked_for() {
    let provider = Provider::start().await;
    provider.set_change(|step, answer| {
        if step == Step::Terms {
            answer["minSendable"] = json!(21_000);
            answer["maxSendable"] = json!(22_000);
        }
    });
    for (sat, is_sold) in [(20, false), (21, true), (22, true), (23, false)] {
        let before = provider.requests().len();
        let sold = sell(&gate(config(&provider.address()), Price::sat(sat))).await;
        if is_sold {
            assert_eq!(amount(&sold.unwrap()), sat * 1_000);
        } else {
            let (kind, text) = sold.unwrap_err();
            assert_eq!(kind, BackendErrorKind::Rejected);
            assert!(text.contains("21000 to 22000 msat"), "{text}");
            assert_eq!(provider.requests().len(), before + 1, "the callback was not called");
        }
    }
}

#[tokio::test]
async fn a_callback_keeps_its_query() {
    let provider = Provider::start().await;
    let callback = provider.url("/cb?id=7&x=a%20b");
    provider.set_change(move |step, answer| {
        if step == Step::Terms {
            answer["callback"] = json!(callback);
        }
    });
    sell(&gate(config(&provider.address()), Price::sat(21))).await.unwrap();
    assert_eq!(provider.requests()[1], "/cb?id=7&x=a%20b&amount=21000");
}

#[tokio::test]
async fn a_provider_without_lud_21_sells_only_where_its_preimages_are_trusted() {
    let provider = Provider::start().await;
    provider.set_change(|step, answer| {
        if step == Step::Invoice {
            answer.as_object_mut().unwrap().remove("verify");
        }
    });
    let (kind, text) = sell(&gate(config(&provider.address()), Price::sat(21))).await.unwrap_err();
    assert_eq!(kind, BackendErrorKind::Unsupported);
    assert!(text.contains("dangerous_trust_preimage"), "{text}");

    let trusting = config(&provider.address()).dangerous_trust_preimage();
    let node = Capabilities::node(Network::Regtest).with_step_msat(1_000).with_fixed_expiry();
    let backend = LnurlBackend::new(trusting.clone()).unwrap();
    assert_eq!(backend.capabilities(), node);
    let gate = gate(trusting, Price::sat(21));
    let paid = buy(&gate, &provider, get("/")).await;
    assert!(paid.admit(&gate, &get("/")).await.is_ok());
    assert!(!paid.caveats().iter().any(|caveat| caveat.contains("verify")));
}

#[tokio::test]
async fn a_provider_that_keeps_its_promises_makes_a_backend_that_keeps_the_contract() {
    let provider = Provider::start().await;
    let backend = Arc::new(LnurlBackend::new(config(&provider.address())).unwrap());
    conformance::backend::check(backend.clone()).await;
    conformance::backend::check_settlement(backend, async |bolt11: String| {
        provider.pay(&bolt11);
    })
    .await;
    let exact = config(&provider.address()).with_msat().dangerous_trust_preimage();
    conformance::backend::check(Arc::new(LnurlBackend::new(exact).unwrap())).await;
}

#[tokio::test]
async fn every_fault_of_a_provider_is_withstood() {
    let build = |url: &str| -> Arc<dyn PaymentBackend> {
        Arc::new(LnurlBackend::new(config(&format!("{url}/.well-known/lnurlp/shop"))).unwrap())
    };
    conformance::backend::check_faults(build, &[]).await;
}

#[test]
fn a_preimage_proves_nothing_unless_it_is_trusted() {
    let backend = LnurlBackend::new(config("shop@pay.example")).unwrap();
    let capabilities = backend.capabilities();
    assert!(!capabilities.preimage_proves_payment());
    assert_eq!(capabilities.look_up(), Some(LookUpBy::Handle));
    assert!(!capabilities.sets_expiry());
}

/// What is wrong with one answer, and what the error says of it.
type Row = (&'static str, Step, Box<dyn Fn(&mut Value) + Send + Sync>, BackendErrorKind, &'static str);

fn row(
    field: &'static str,
    step: Step,
    value: impl Into<Value>,
    kind: BackendErrorKind,
    says: &'static str,
) -> Row {
    let value = value.into();
    (field, step, Box::new(move |answer| answer[field] = value.clone()), kind, says)
}

#[tokio::test]
async fn wrong_answers_sell_nothing() {
    use BackendErrorKind::{Backend, InvalidResponse, Rejected};
    let provider = Provider::start().await;
    let long = format!("{}?{}", provider.url("/verify/1"), "x".repeat(256));
    let rows: Vec<Row> = vec![
        row("tag", Step::Terms, "withdrawRequest", InvalidResponse, "LUD-06"),
        row("status", Step::Terms, "ERROR", Backend, "by hand"),
        row("status", Step::Invoice, "error", Backend, "by hand"),
        row("callback", Step::Terms, Value::Null, InvalidResponse, "fields"),
        row("callback", Step::Terms, "/cb", InvalidResponse, "no URL"),
        row("callback", Step::Terms, "file:///etc/passwd", InvalidResponse, "no URL"),
        row("callback", Step::Terms, "https://a:b@pay.example/", InvalidResponse, "no URL"),
        row("minSendable", Step::Terms, -1, InvalidResponse, "fields"),
        row("minSendable", Step::Terms, 1e30, InvalidResponse, "fields"),
        row("maxSendable", Step::Terms, 0, Rejected, "21000 msat"),
        row("metadata", Step::Terms, "[[\"text/plain\",\"another\"]]", InvalidResponse, "metadata"),
        row("pr", Step::Invoice, "", InvalidResponse, "BOLT 11"),
        row("pr", Step::Invoice, "lnbcrt".repeat(1_000), InvalidResponse, "BOLT 11"),
        row("verify", Step::Invoice, 7, InvalidResponse, "fields"),
        row("verify", Step::Invoice, "", InvalidResponse, "no URL"),
        row("verify", Step::Invoice, "https://pay.example/verify", InvalidResponse, "another host"),
        row("verify", Step::Invoice, "https://127.0.0.1.pay.example/", InvalidResponse, "another host"),
        row("verify", Step::Invoice, "http://127.0.0.1:9/verify", InvalidResponse, "not https"),
        row("verify", Step::Invoice, "http://x@127.0.0.1/verify", InvalidResponse, "no URL"),
        row("verify", Step::Invoice, long, InvalidResponse, "256 characters"),
    ];
    for (field, step, change, kind, says) in rows {
        provider.set_change(move |at, answer| {
            // Nothing that a provider writes reaches an operator's log.
            answer["reason"] = json!("SECRET\n");
            if at == step {
                change(answer);
            }
        });
        let (found, text) = sell(&gate(config(&provider.address()), Price::sat(21))).await.unwrap_err();
        assert_eq!(found, kind, "{field} {says}: {text}");
        assert!(text.contains(says), "{field}: {text}");
        assert!(!text.contains("SECRET"), "{text}");
    }
}

#[tokio::test]
async fn an_invoice_that_is_not_as_asked_is_not_sold() {
    let provider = Provider::start().await;
    let gate = gate(config(&provider.address()), Price::sat(21));
    provider.set_terms(|terms| terms.amount_msat += 1);
    assert_eq!(sell(&gate).await.unwrap_err().0, BackendErrorKind::InvalidResponse);
    provider.set_terms(|terms| terms.metadata = Some("[]".to_owned()));
    assert!(sell(&gate).await.unwrap_err().1.contains("metadata"));
    provider.set_terms(|terms| terms.expiry = Duration::from_secs(60));
    assert!(sell(&gate).await.unwrap_err().1.contains("expires"));
    // LUD-06 lets a provider write a description in place of the hash.
    provider.set_terms(|terms| terms.metadata = None);
    assert!(sell(&gate).await.is_ok());
}

/// Where no provider may send the server: `{port}` is of the trap.
const FORBIDDEN: [&str; 13] = [
    "http://169.254.169.254/latest/meta-data",
    "https://169.254.169.254/latest/meta-data",
    "http://127.0.0.1:{port}/",
    "https://127.0.0.1:{port}/",
    "https://127.1:{port}/",
    "https://0x7f000001:{port}/",
    "https://2130706433:{port}/",
    "https://[::1]:{port}/",
    "https://[::ffff:127.0.0.1]:{port}/",
    "https://[::ffff:7f00:1]:{port}/",
    "https://0.0.0.0:{port}/",
    // A name that resolves to loopback.
    "https://localhost:{port}/",
    "http://localhost:{port}/",
];

/// What an error says where nobody was connected to.
const NOT_REACHED: [&str; 2] = ["no public address", "invalid dns name"];

#[tokio::test]
async fn a_callback_leads_to_no_address_that_is_not_public() {
    let provider = Provider::start().await;
    let (port, visits) = trap().await;
    for url in FORBIDDEN {
        let url = url.replace("{port}", &port.to_string());
        let callback = url.clone();
        provider.set_change(move |step, answer| {
            if step == Step::Terms {
                answer["callback"] = json!(callback);
            }
        });
        let (kind, text) = sell(&gate(config(&provider.address()), Price::sat(21))).await.unwrap_err();
        let is_refused = match kind {
            BackendErrorKind::Connect => NOT_REACHED.iter().any(|why| text.contains(why)),
            kind => kind == BackendErrorKind::InvalidResponse && text.contains("not https"),
        };
        assert!(is_refused, "{url}: {text}");
    }
    assert_eq!(visits.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_handle_leads_to_no_address_that_is_not_public() {
    let provider = Provider::start().await;
    let backend = LnurlBackend::new(config(&provider.address())).unwrap();
    let (port, visits) = trap().await;
    let hash = PaymentHash::from_bytes([7; 32]);
    for url in FORBIDDEN {
        let url = url.replace("{port}", &port.to_string());
        let error = backend.look_up(hash, Some(&url)).await.unwrap_err();
        let text = shown(&error);
        let is_refused = match error.kind() {
            BackendErrorKind::Connect => NOT_REACHED.iter().any(|why| text.contains(why)),
            kind => kind == BackendErrorKind::Unsupported,
        };
        assert!(is_refused, "{url}: {text}");
    }
    for handle in [None, Some("inv_1"), Some("ftp://pay.example/"), Some("https://a@pay.example/")] {
        let error = backend.look_up(hash, handle).await.unwrap_err();
        assert_eq!(error.kind(), BackendErrorKind::Unsupported, "{handle:?}");
    }
    assert_eq!(visits.load(Ordering::SeqCst), 0);
    assert!(provider.requests().is_empty());
}

/// An answer in place of the one that was asked for.
type Odd = fn(u16) -> Response;

const ODD: [(&str, Odd, &str); 6] = [
    (
        "a redirect to loopback",
        |port| Redirect::temporary(&format!("http://127.0.0.1:{port}/")).into_response(),
        "307: redirects are not",
    ),
    (
        "a redirect to a name",
        |port| Redirect::permanent(&format!("https://localhost:{port}/")).into_response(),
        "308: redirects are not",
    ),
    ("a huge body", |_| vec![b' '; 1 << 20].into_response(), "too long"),
    ("a body without end", |_| Body::new(Endless(Some(&[b' '; 4096]))).into_response(), "too long"),
    ("no JSON", |_| "<html>SECRET".into_response(), "not JSON"),
    ("a deep JSON", |_| format!("{{\"x\":{}", "[".repeat(200_000)).into_response(), "not JSON"),
];

/// A body that goes on for ever, in these pieces, or keeps silent without one.
struct Endless(Option<&'static [u8]>);

impl http_body::Body for Endless {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Infallible>>> {
        self.0.map_or(Poll::Pending, |piece| Poll::Ready(Some(Ok(http_body::Frame::data(piece.into())))))
    }
}

#[tokio::test]
async fn odd_answers_are_errors_at_every_step() {
    let provider = Provider::start().await;
    let backend = LnurlBackend::new(config(&provider.address())).unwrap();
    let gate = gate(config(&provider.address()), Price::sat(21));
    let (port, visits) = trap().await;
    for (name, odd, says) in ODD {
        for step in [Step::Terms, Step::Invoice] {
            provider.set_answer(move |at| (at == step).then(|| odd(port)));
            let (kind, text) = sell(&gate).await.unwrap_err();
            assert_eq!(kind, BackendErrorKind::InvalidResponse, "{name}: {text}");
            assert!(text.contains(says) && !text.contains("SECRET"), "{name}: {text}");
        }
        provider.set_answer(move |_| Some(odd(port)));
        let look_up = backend.look_up([7; 32].into(), Some(&provider.url("/verify/1"))).await.unwrap_err();
        let health = backend.check_health().await.unwrap_err();
        for error in [look_up, health] {
            assert_eq!(error.kind(), BackendErrorKind::InvalidResponse, "{name}");
            assert!(shown(&error).contains(says), "{name}: {error:?}");
        }
    }
    assert_eq!(visits.load(Ordering::SeqCst), 0, "no redirect was followed");
}

#[tokio::test]
async fn a_provider_that_falls_silent_is_given_up_in_time() {
    let provider = Provider::start().await;
    let backend = LnurlBackend::new(config(&provider.address())).unwrap();
    let verify = provider.url("/verify/1");
    provider.set_answer(|_| Some(Body::new(Endless(None)).into_response()));
    let look_up = tokio::spawn(async move { backend.look_up([7; 32].into(), Some(&verify)).await });
    provider.was_asked(1).await;
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(6)).await;
    assert_eq!(look_up.await.unwrap().unwrap_err().kind(), BackendErrorKind::Timeout);
}

#[tokio::test]
async fn what_became_of_an_invoice_is_told() {
    let provider = Provider::start().await;
    let backend = LnurlBackend::new(config(&provider.address())).unwrap();
    let gate = gate(config(&provider.address()), Price::sat(21));
    let made = sell(&gate).await.unwrap();
    let hash: PaymentHash = hash_of(made.invoice()).parse().unwrap();
    let verify = handle(&made).unwrap();

    assert_eq!(backend.look_up(hash, Some(&verify)).await.unwrap(), InvoiceState::Open);
    provider.pay(made.invoice());
    assert_eq!(backend.look_up(hash, Some(&verify)).await.unwrap(), InvoiceState::Settled);
    let unknown = provider.url("/verify/0");
    assert_eq!(backend.look_up(hash, Some(&unknown)).await.unwrap(), InvoiceState::Unknown);

    let other = sell(&gate).await.unwrap();
    provider.pay(other.invoice());
    let error = backend.look_up(hash, handle(&other).as_deref()).await.unwrap_err();
    assert_eq!(
        error.kind(),
        BackendErrorKind::InvalidResponse,
        "another invoice's payment is none of this one"
    );

    provider.set_terms(|terms| terms.dated -= 2 * 3_600);
    let old = provider.make(21_000);
    let (old_hash, old_verify) = (hash_of(&old), provider.url(&format!("/verify/{}", hash_of(&old))));
    let state = backend.look_up(old_hash.parse().unwrap(), Some(&old_verify)).await.unwrap();
    assert_eq!(state, InvoiceState::Closed, "an invoice that has expired can no longer be paid");

    provider.set_change(|_, answer| *answer = json!({ "status": "ERROR", "reason": "SECRET" }));
    let error = backend.look_up(hash, Some(&verify)).await.unwrap_err();
    assert_eq!(error.kind(), BackendErrorKind::Backend);
    assert!(!shown(&error).contains("SECRET"));
}

#[tokio::test]
async fn health_is_that_of_the_address() {
    let provider = Provider::start().await;
    let backend = LnurlBackend::new(config(&provider.address())).unwrap();
    backend.check_health().await.unwrap();
    provider.set_change(|_, answer| *answer = json!({ "status": "ERROR", "reason": "no such user" }));
    assert_eq!(backend.check_health().await.unwrap_err().kind(), BackendErrorKind::Backend);
}

#[test]
fn an_address_that_cannot_be_read_does_not_build() {
    let error = LnurlBackend::new(config("http://pay.example/p")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Backend);
    assert!(error.to_string().contains("https://"), "{error}");
}
