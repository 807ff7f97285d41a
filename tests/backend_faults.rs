//! A node that fails in every way: the client is answered 503 and pays
//! nothing, the operator learns why, and who has paid already is served.

mod support {
    pub mod bolt11;
}

use std::error::Error as StdError;
use std::fmt;
use std::future::pending;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bitcoin::hashes::{Hash as _, sha256};
use bytes::Bytes;
use http::{HeaderValue, Request, Response};
use http_body_util::{BodyExt as _, Full};
use l402::{
    Access, BackendError, BackendErrorKind, Capabilities, Cause, Challenge, FixedClock, Gate, HOUR, Invoice,
    InvoiceRequest, Issuer, IssuerBuilder, KeyRing, L402Layer, Network, Offer, PaymentBackend, PaymentHash,
    Price, Refusal, RootKey,
};
use lightning_invoice::{Bolt11Invoice, Currency, PaymentSecret, RawTaggedField, Sha256, TaggedField};
use tokio::time::Instant;
use tower::{Layer as _, ServiceExt as _, service_fn};

use support::bolt11::{Bolt11, is_payment_hash, is_payment_secret};

const NOW: u64 = 1_900_000_000;
const REGTEST: Capabilities = Capabilities::node(Network::Regtest);

type Answer = dyn Fn(&InvoiceRequest) -> Option<Result<Invoice, BackendError>> + Send + Sync;

/// A node that answers what the test says, or never (`None`).
#[derive(Clone)]
struct Node {
    capabilities: Capabilities,
    answer: Arc<Answer>,
    asked: Arc<Mutex<Vec<InvoiceRequest>>>,
}

impl Node {
    fn new(
        answer: impl Fn(&InvoiceRequest) -> Option<Result<Invoice, BackendError>> + Send + Sync + 'static,
    ) -> Self {
        Self { capabilities: REGTEST, answer: Arc::new(answer), asked: Arc::default() }
    }

    fn bending(bend: impl Fn(&mut Bolt11) + Send + Sync + 'static) -> Self {
        Self::new(move |ask| {
            let mut bolt11 = Bolt11::as_asked(ask, NOW);
            bend(&mut bolt11);
            Some(Ok(bolt11.invoice()))
        })
    }

    fn text(text: impl Fn(&InvoiceRequest) -> String + Send + Sync + 'static) -> Self {
        Self::new(move |ask| Some(Ok(Invoice::from_bolt11(text(ask)))))
    }

    fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Node")
    }
}

#[async_trait]
impl PaymentBackend for Node {
    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    async fn create_invoice(&self, ask: &InvoiceRequest) -> Result<Invoice, BackendError> {
        self.asked.lock().unwrap().push(ask.clone());
        match (self.answer)(ask) {
            Some(answer) => answer,
            None => pending().await,
        }
    }
}

/// A gate over this node, and a handler behind it that counts its calls.
#[derive(Clone)]
struct Site {
    gate: Gate,
    calls: Arc<AtomicUsize>,
}

impl Site {
    fn new(node: &Node) -> Self {
        Self::with(node, Price::sat(21), |builder| builder)
    }

    fn with(node: &Node, price: Price, configure: impl FnOnce(IssuerBuilder) -> IssuerBuilder) -> Self {
        let keys = KeyRing::new(RootKey::new([0x5a; 32]).unwrap());
        let builder = Issuer::builder(keys, node.clone())
            .with_network(Network::Regtest)
            .with_clock(FixedClock::at(NOW));
        let issuer = configure(builder).build().unwrap();
        let gate = Gate::new(&issuer, "svc", Offer::new(price, Access::pass(HOUR))).unwrap();
        Self { gate, calls: Arc::default() }
    }

    async fn ask(&self, credential: Option<HeaderValue>) -> Response<Bytes> {
        let mut request = Request::new(());
        if let Some(value) = credential {
            request.headers_mut().insert("authorization", value);
        }
        let calls = self.calls.clone();
        let inner = service_fn(move |_: Request<()>| {
            calls.fetch_add(1, Ordering::SeqCst);
            async { Ok::<_, std::convert::Infallible>(Response::new(Full::<Bytes>::default())) }
        });
        let response = L402Layer::new(self.gate.clone()).layer(inner).oneshot(request).await.unwrap();
        let (head, body) = response.into_parts();
        Response::from_parts(head, body.collect().await.unwrap().to_bytes())
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    /// Asserts a 503 of this refusal and gives its cause, one line.
    async fn is_out(&self, code: &str) -> String {
        let calls = self.calls();
        let response = self.ask(None).await;
        assert_eq!(response.status(), 503, "{code}");
        assert_eq!(self.calls(), calls, "the handler is untouched");
        assert!(response.headers().contains_key("retry-after"));
        assert_eq!(response.headers()["cache-control"], "no-store");
        assert!(!response.headers().contains_key("www-authenticate"), "an outage sells nothing");
        assert_eq!(response.extensions().get::<Refusal>().unwrap().code(), code);
        let cause = response.extensions().get::<Cause>().map(|cause| {
            assert_holds_no_secret(&format!("{cause:?}"));
            chain(cause)
        });
        let cause = cause.unwrap_or_default();
        assert_holds_no_secret(&cause);
        let body = std::str::from_utf8(response.body()).unwrap();
        let json: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(
            (&json["code"], &json["status"], &json["l402"]),
            (&code.into(), &503.into(), &json["none"])
        );
        for said in cause.split(": ").filter(|said| !said.is_empty()) {
            assert!(!body.contains(said), "the client is not told: {said}");
        }
        cause
    }
}

fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text = format!("{text}: {error}");
        next = error.source();
    }
    text
}

fn assert_holds_no_secret(text: &str) {
    assert!(text.len() < 1000, "{} bytes", text.len());
    assert!(!text.contains(&"5a".repeat(8)) && !text.contains("90, 90, 90"), "the root key: {text}");
    assert!(!text.contains("lnbc"), "an invoice: {text}");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_hangs_is_given_up_after_the_time_limit() {
    let node = Node::new(|_| None);
    for (site, limit) in [
        (Site::new(&node), 10),
        (
            Site::with(&node, Price::sat(1), |builder| {
                builder.with_invoice_limits(64, Duration::from_secs(3))
            }),
            3,
        ),
    ] {
        let start = Instant::now();
        assert_eq!(site.is_out("backend_unavailable").await, "backend did not answer in time");
        // Timers count whole milliseconds.
        let waited = start.elapsed().as_millis();
        assert!((limit * 1000..=limit * 1000 + 1).contains(&waited), "{waited} ms");
    }
}

#[tokio::test]
async fn an_error_of_each_kind_is_a_503_with_its_cause() {
    let limited = |retry_after| BackendErrorKind::RateLimited { retry_after };
    for (kind, said, wait) in [
        (BackendErrorKind::Connect, "backend was not reached", "5"),
        (BackendErrorKind::Timeout, "backend did not answer in time", "5"),
        (BackendErrorKind::Auth, "backend refused our credentials", "5"),
        (limited(None), "backend limits our rate", "5"),
        (limited(Some(Duration::from_secs(90))), "backend limits our rate", "90"),
        (limited(Some(Duration::from_millis(1001))), "backend limits our rate", "2"),
        (limited(Some(Duration::from_secs(86_400))), "backend limits our rate", "3600"),
        (limited(Some(Duration::MAX)), "backend limits our rate", "3600"),
        (BackendErrorKind::Rejected, "backend does not make such an invoice", "5"),
        (BackendErrorKind::InvalidResponse, "backend gave an invalid answer", "5"),
        (BackendErrorKind::Backend, "backend failed", "5"),
    ] {
        let node = Node::new(move |_| Some(Err(BackendError::new(kind, "node says no"))));
        let site = Site::new(&node);
        assert_eq!(site.is_out("backend_unavailable").await, format!("{said}: node says no"));
        assert_eq!(site.ask(None).await.headers()["retry-after"], wait, "{kind:?}");
    }
}

const ON_ANOTHER: &str = "invoice is on another network: tell the backend which one its node is on";

#[tokio::test]
async fn an_invoice_that_is_not_as_asked_is_never_handed_out() {
    let not_a_bolt11 = "invoice is no valid BOLT 11 text";
    let rows: Vec<(&str, Node, &str)> = vec![
        (
            "another hash beside the invoice",
            Node::new(|ask| {
                Some(Ok(Bolt11::as_asked(ask, NOW)
                    .invoice()
                    .with_payment_hash(PaymentHash::from_bytes([1; 32]))))
            }),
            "invoice has another payment hash than the backend named",
        ),
        (
            "less",
            Node::bending(|i| i.amount_msat = Some(20_999)),
            "invoice is not for the amount that was asked",
        ),
        (
            "more",
            Node::bending(|i| i.amount_msat = Some(21_001)),
            "invoice is not for the amount that was asked",
        ),
        (
            "a thousand times",
            Node::bending(|i| i.amount_msat = Some(21)),
            "invoice is not for the amount that was asked",
        ),
        (
            "any amount",
            Node::bending(|i| i.amount_msat = None),
            "invoice is not for the amount that was asked",
        ),
        ("mainnet", Node::bending(|i| i.currency = Currency::Bitcoin), ON_ANOTHER),
        ("testnet", Node::bending(|i| i.currency = Currency::BitcoinTestnet), ON_ANOTHER),
        ("signet", Node::bending(|i| i.currency = Currency::Signet), ON_ANOTHER),
        (
            "expired",
            Node::bending(|i| i.timestamp = NOW - 300),
            "invoice has expired as soon as it was made: set the node's clock",
        ),
        (
            "expired long ago",
            Node::bending(|i| i.timestamp = 0),
            "invoice has expired as soon as it was made: set the node's clock",
        ),
        (
            "shorter",
            Node::bending(|i| i.expiry = Duration::from_secs(299)),
            "invoice expires at another time than was asked",
        ),
        (
            "longer",
            Node::bending(|i| i.expiry = Duration::from_secs(301)),
            "invoice expires at another time than was asked",
        ),
        ("garbage", Node::text(|_| "lnbcrt1garbage".into()), not_a_bolt11),
        ("nothing", Node::text(|_| String::new()), not_a_bolt11),
        ("not ASCII", Node::text(|_| "⚡".repeat(100)), not_a_bolt11),
        ("1 MiB", Node::text(|_| "lnbcrt1".to_owned() + &"q".repeat(1 << 20)), not_a_bolt11),
        (
            "1 MiB of space",
            Node::text(|ask| " ".repeat(1 << 20) + &Bolt11::as_asked(ask, NOW).text()),
            not_a_bolt11,
        ),
        ("a URI", Node::text(|ask| format!("lightning:{}", Bolt11::as_asked(ask, NOW).text())), not_a_bolt11),
        ("two invoices", Node::text(|ask| Bolt11::as_asked(ask, NOW).text().repeat(2)), not_a_bolt11),
        (
            "mixed case",
            Node::text(|ask| {
                let text = Bolt11::as_asked(ask, NOW).text();
                text[..20].to_owned() + &text[20..].to_uppercase()
            }),
            not_a_bolt11,
        ),
        (
            "one letter changed",
            Node::text(|ask| {
                let mut text = Bolt11::as_asked(ask, NOW).text().into_bytes();
                text[40] = if text[40] == b'q' { b'p' } else { b'q' };
                String::from_utf8(text).unwrap()
            }),
            not_a_bolt11,
        ),
    ];
    for (name, node, said) in rows {
        let site = Site::new(&node);
        let cause = site.is_out("backend_unavailable").await;
        assert_eq!(cause, format!("backend gave an invalid answer: {said}"), "{name}");
        assert_eq!(node.asked(), 1, "{name}");
    }
}

/// A payer would not know what it pays for.
#[tokio::test]
async fn an_invoice_has_one_payment_hash_and_one_payment_secret() {
    for (name, edit) in [
        (
            "no payment secret",
            (|fields| fields.retain(|field| !is_payment_secret(field))) as fn(&mut Vec<RawTaggedField>),
        ),
        ("two payment secrets", |fields| {
            fields.push(TaggedField::PaymentSecret(PaymentSecret([3; 32])).into());
        }),
        ("no payment hash", |fields| fields.retain(|field| !is_payment_hash(field))),
        ("two payment hashes", |fields| {
            let other = Sha256(sha256::Hash::from_byte_array([3; 32]));
            fields.push(TaggedField::PaymentHash(other).into());
        }),
    ] {
        let cause = Site::new(&Node::bending(move |i| i.edit = edit)).is_out("backend_unavailable").await;
        assert_eq!(cause, "backend gave an invalid answer: invoice is no valid BOLT 11 text", "{name}");
    }
}

/// An invoice may be written in upper case, as it is in QR codes; the client
/// gets it in lower case.
#[tokio::test]
async fn an_invoice_in_upper_case_or_between_spaces_is_handed_out_in_lower_case() {
    for node in [
        Node::text(|ask| Bolt11::as_asked(ask, NOW).text().to_uppercase()),
        Node::text(|ask| format!("\n {} \n", Bolt11::as_asked(ask, NOW).text())),
    ] {
        let response = Site::new(&node).ask(None).await;
        assert_eq!(response.status(), 402);
        let challenge = challenge(&response);
        assert!(challenge.invoice().bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()));
        challenge.invoice().parse::<Bolt11Invoice>().unwrap();
    }
}

#[tokio::test]
async fn a_node_that_cannot_set_the_expiry_may_give_a_longer_one_and_no_shorter() {
    for (seconds, pay_by) in
        [(299, None), (300, Some(NOW + 300)), (301, Some(NOW + 301)), (86_400, Some(NOW + 86_400))]
    {
        let mut node = Node::bending(move |i| i.expiry = Duration::from_secs(seconds));
        node.capabilities = REGTEST.with_fixed_expiry();
        let site = Site::new(&node);
        if let Some(pay_by) = pay_by {
            let response = site.ask(None).await;
            assert_eq!(response.status(), 402, "{seconds}");
            let body: serde_json::Value = serde_json::from_slice(response.body()).unwrap();
            assert_eq!(body["l402"]["pay_by"], pay_by, "{seconds}");
            assert_eq!(body["l402"]["valid_until"], pay_by + 3600, "who pays in time gets all of it");
        } else {
            let cause = site.is_out("backend_unavailable").await;
            assert!(cause.ends_with("invoice expires at another time than was asked"), "{cause}");
        }
    }
}

/// The node's clock says until when an invoice can be paid, and who pays in
/// time gets all that was sold.
#[tokio::test]
async fn what_a_buyer_is_told_fits_an_invoice_of_another_clock() {
    for (ahead, pay_by) in [(-299, NOW + 1), (-100, NOW + 200), (0, NOW + 300), (299, NOW + 599)] {
        let node = Node::bending(move |i| i.timestamp = NOW.checked_add_signed(ahead).unwrap());
        let response = Site::new(&node).ask(None).await;
        let body: serde_json::Value = serde_json::from_slice(response.body()).unwrap();
        assert_eq!(body["l402"]["pay_by"], pay_by, "{ahead}");
        assert_eq!(body["l402"]["valid_until"], pay_by + 3600, "{ahead}");
    }
    let ahead = Node::bending(|i| i.timestamp = NOW + 300);
    let cause = Site::new(&ahead).is_out("backend_unavailable").await;
    assert!(cause.contains("in the future"), "{cause}");
}

#[tokio::test]
async fn a_payment_hash_is_sold_once() {
    let node = Node::bending(|i| i.hash = [0xee; 32]);
    let site = Site::new(&node);
    assert_eq!(site.ask(None).await.status(), 402);
    for _ in 0..2 {
        let cause = site.is_out("backend_unavailable").await;
        assert_eq!(cause, "backend gave an invalid answer: payment hash was used before");
    }
    // Nor by another issuer of the process, on the same node.
    let cause = Site::new(&node).is_out("backend_unavailable").await;
    assert_eq!(cause, "backend gave an invalid answer: payment hash was used before");
}

/// A hash that came in an invoice that was refused was sold to nobody.
#[tokio::test]
async fn a_refused_invoice_does_not_use_up_its_hash() {
    let first = AtomicUsize::new(0);
    let node = Node::bending(move |i| {
        i.hash = [0xed; 32];
        if first.fetch_add(1, Ordering::SeqCst) == 0 {
            i.amount_msat = Some(1);
        }
    });
    let site = Site::new(&node);
    site.is_out("backend_unavailable").await;
    assert_eq!(site.ask(None).await.status(), 402);
}

#[tokio::test]
async fn amounts_are_rounded_up_to_what_the_node_bills() {
    for (price, step, asked) in [
        (1, 1, 1),
        (1, 1_000, 1_000),
        (1_000, 1_000, 1_000),
        (1_001, 1_000, 2_000),
        (1_500, 1_000, 2_000),
        (21_000, 1_000, 21_000),
        (21_001, 10_000, 30_000),
    ] {
        let mut node = Node::bending(|_| {});
        node.capabilities = REGTEST.with_step_msat(step);
        let response = Site::with(&node, Price::msat(price), |builder| builder).ask(None).await;
        assert_eq!(node.asked.lock().unwrap()[0].amount_msat, asked, "{price} in steps of {step}");
        let invoice: Bolt11Invoice = challenge(&response).invoice().parse().unwrap();
        assert_eq!(invoice.amount_milli_satoshis(), Some(asked));
        let body: serde_json::Value = serde_json::from_slice(response.body()).unwrap();
        assert_eq!(body["l402"]["price_msat"], asked, "the client is told what it pays");
        assert_eq!(body["l402"]["offers"][0]["price_msat"], price, "and what the offer costs");
    }
}

#[tokio::test]
async fn the_node_learns_what_is_sold() {
    let node = Node::bending(|_| {});
    let challenge = challenge(&Site::new(&node).ask(None).await);
    let ask = node.asked.lock().unwrap().pop().unwrap();
    assert_eq!((&*ask.service, &*ask.offer, &*ask.description), ("svc", "default", "svc"));
    assert_eq!(ask.token_id, challenge.token().identifier().token_id);
    assert_eq!(ask.expiry, Duration::from_secs(300));
}

#[tokio::test(start_paused = true)]
async fn beyond_the_bound_a_challenge_is_busy_at_once_and_paid_requests_go_on() {
    const BOUND: usize = 3;
    let node = Node::new(|_| None);
    let site = Site::with(&node, Price::sat(1), |builder| {
        builder.with_invoice_limits(BOUND, Duration::from_secs(10))
    });
    let start = Instant::now();
    let hanging: Vec<_> = (0..BOUND)
        .map(|_| {
            let other = Site { gate: site.gate.clone(), calls: Arc::default() };
            tokio::spawn(async move { other.is_out("backend_unavailable").await })
        })
        .collect();
    while node.asked() < BOUND {
        tokio::task::yield_now().await;
    }

    for _ in 0..5 {
        assert_eq!(site.is_out("busy").await, "");
        assert_eq!(site.ask(Some(site.gate.test_credential())).await.status(), 200);
    }
    assert_eq!(node.asked(), BOUND, "the node is not asked beyond the bound");
    assert_eq!(start.elapsed(), Duration::ZERO, "nobody waited");
    assert_eq!(site.calls(), 5);

    for answer in hanging {
        assert_eq!(answer.await.unwrap(), "backend did not answer in time");
    }
    // All places are free again.
    site.is_out("backend_unavailable").await;
    assert_eq!(node.asked(), BOUND + 1);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_gives_its_place_back() {
    let node = Node::new(|_| None);
    let site =
        Site::with(&node, Price::sat(1), |builder| builder.with_invoice_limits(1, Duration::from_secs(10)));
    let leaving = tokio::spawn({
        let site = site.clone();
        async move { site.ask(None).await }
    });
    while node.asked() == 0 {
        tokio::task::yield_now().await;
    }
    site.is_out("busy").await;
    leaving.abort();
    assert!(leaving.await.unwrap_err().is_cancelled());
    site.is_out("backend_unavailable").await;
    assert_eq!(node.asked(), 2);
}

#[tokio::test]
async fn a_node_that_panics_is_out_and_takes_no_place() {
    let node = Node::new(|_| panic!("the node's client panics"));
    let site =
        Site::with(&node, Price::sat(1), |builder| builder.with_invoice_limits(1, Duration::from_secs(10)));
    for n in 1..=3 {
        let cause = site.is_out("backend_unavailable").await;
        assert!(cause.ends_with("backend panicked"), "{cause}");
        assert_eq!(node.asked(), n, "the place is free again");
    }
    assert_eq!(site.ask(Some(site.gate.test_credential())).await.status(), 200);
    assert_eq!(site.calls(), 1);
}

/// The node is down, and nobody who paid notices.
#[tokio::test]
async fn paid_requests_need_no_node() {
    let node = Node::new(|_| Some(Err(BackendError::connect("refused"))));
    let site = Site::new(&node);
    for _ in 0..3 {
        assert_eq!(site.ask(Some(site.gate.test_credential())).await.status(), 200);
    }
    // Nor whoever must not be sold anything.
    assert_eq!(site.ask(Some(HeaderValue::from_static("L402 x"))).await.status(), 401);
    assert_eq!(node.asked(), 0);
}

#[tokio::test]
async fn an_outage_is_14_for_grpc_with_its_wait() {
    let node = Node::new(|_| Some(Err(BackendError::connect("refused"))));
    let site = Site::new(&node);
    let (mut head, ()) = Request::post("/svc.Svc/Do")
        .header("content-type", "application/grpc")
        .body(())
        .unwrap()
        .into_parts();
    let response = site.gate.admit(&mut head).await.unwrap_err();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["grpc-status"], "14");
    assert_eq!(response.headers()["grpc-message"], "the Lightning backend cannot be asked just now");
    assert_eq!(response.headers()["retry-after"], "5");
    assert!(!response.headers().contains_key("www-authenticate"));
    assert!(response.body().is_empty());
}

fn challenge(response: &Response<Bytes>) -> Challenge {
    response.headers()["www-authenticate"].to_str().unwrap().parse().unwrap()
}
