//! Where a preimage does not prove a payment, the backend is asked: once per
//! token, and nobody is admitted before it says so.

#![allow(missing_docs)]

#[path = "support/svc.rs"]
mod svc;

use std::future::pending;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use http::header::{AUTHORIZATION, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, Response};
use l402::{
    Access, BackendError, BackendErrorKind, Basis, Capabilities, Cause, Challenge, DevBackend, ErrorKind,
    FixedClock, Gate, Grant, Invoice, InvoiceRequest, InvoiceState, Issuer, IssuerBuilder, KeyRing,
    L402Layer, LookUpBy, MINUTE, MemoryLedger, Network, Offer, PaymentBackend, PaymentHash, Preimage, Price,
    RootKey,
};
use svc::{NOW, Paid, call, code, inner, ok, outcome, poll_once, request};
use tokio::sync::Notify;
use tower::Layer as _;

const CUSTODIAN: Capabilities = Capabilities::custodian(Network::Regtest).with_look_up(LookUpBy::PaymentHash);
const NODE: Capabilities = Capabilities::node(Network::Regtest).with_look_up(LookUpBy::PaymentHash);
const BY_HANDLE: Capabilities = Capabilities::custodian(Network::Regtest).with_look_up(LookUpBy::Handle);
const SERVICE: &str = "svc";

/// What the backend says of every invoice.
#[derive(Clone, Copy, Debug)]
enum Says {
    State(InvoiceState),
    Fails,
    Hangs,
    Panics,
}

use Says::{Fails, Hangs, Panics, State};

/// A backend whose look-up a test decides.
#[derive(Debug)]
struct Bank {
    wallet: DevBackend,
    capabilities: Capabilities,
    handle: Option<&'static str>,
    says: Mutex<Says>,
    asked: Mutex<Vec<(PaymentHash, Option<String>)>>,
    /// Awaited by every look-up, where a test holds them back.
    held: Option<Notify>,
}

#[async_trait]
impl PaymentBackend for Bank {
    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    async fn create_invoice(&self, ask: &InvoiceRequest) -> Result<Invoice, BackendError> {
        let invoice = self.wallet.create_invoice(ask).await?;
        Ok(match self.handle {
            Some(handle) => invoice.with_handle(handle),
            None => invoice,
        })
    }

    async fn look_up(&self, hash: PaymentHash, handle: Option<&str>) -> Result<InvoiceState, BackendError> {
        self.asked.lock().unwrap().push((hash, handle.map(str::to_owned)));
        if let Some(held) = &self.held {
            held.notified().await;
        }
        let says = *self.says.lock().unwrap();
        match says {
            State(state) => Ok(state),
            Fails => Err(BackendError::connect("the bank is closed")),
            Hangs => pending().await,
            Panics => panic!("the bank breaks"),
        }
    }
}

struct Town {
    clock: FixedClock,
    bank: Arc<Bank>,
    issuer: Issuer,
}

impl Town {
    fn new(capabilities: Capabilities) -> Self {
        Self::build(capabilities, None, |issuer| issuer)
    }

    fn build(
        capabilities: Capabilities,
        handle: Option<&'static str>,
        configure: impl FnOnce(IssuerBuilder) -> IssuerBuilder,
    ) -> Self {
        Self::with_held(capabilities, handle, None, configure)
    }

    fn with_held(
        capabilities: Capabilities,
        handle: Option<&'static str>,
        held: Option<Notify>,
        configure: impl FnOnce(IssuerBuilder) -> IssuerBuilder,
    ) -> Self {
        let clock = FixedClock::at(NOW);
        let bank = Arc::new(Bank {
            wallet: DevBackend::with_clock(clock.clone()),
            capabilities,
            handle,
            says: Mutex::new(State(InvoiceState::Open)),
            asked: Mutex::default(),
            held,
        });
        let builder = Issuer::builder(keys(), bank.clone())
            .with_network(Network::Regtest)
            .with_ledger(MemoryLedger::new())
            .with_clock(clock.clone());
        let issuer = configure(builder).build().unwrap();
        Self { clock, bank, issuer }
    }

    fn gate(&self, access: Access) -> Gate {
        Gate::new(&self.issuer, SERVICE, Offer::new(Price::sat(21), access)).unwrap()
    }

    fn says(&self, says: Says) {
        *self.bank.says.lock().unwrap() = says;
    }

    fn asked(&self) -> usize {
        self.bank.asked.lock().unwrap().len()
    }

    /// A token and its preimage, whatever the bank says of the payment.
    async fn buy(&self, gate: &Gate) -> Paid {
        let mut head = request(None).into_parts().0;
        let refused = gate.admit(&mut head).await.unwrap_err();
        assert_eq!(code(&refused), Some("missing_credential"));
        let preimage = self.bank.wallet.pay(challenge(&refused).invoice()).unwrap();
        Paid { token: challenge(&refused).token().clone(), preimage }
    }
}

fn keys() -> KeyRing {
    KeyRing::new(RootKey::new([7; 32]).unwrap())
}

fn challenge<B>(refused: &Response<B>) -> Challenge {
    refused.headers()[WWW_AUTHENTICATE].to_str().unwrap().parse().unwrap()
}

/// Presents this credential.
async fn present(gate: &Gate, credential: &HeaderValue) -> Result<Grant, Response<bytes::Bytes>> {
    let mut head = request(Some(credential)).into_parts().0;
    gate.admit(&mut head).await.map(|admission| admission.grant().clone())
}

/// The credential without the preimage.
fn alone(paid: &Paid) -> HeaderValue {
    format!("L402 {}", paid.token.to_base64()).parse().unwrap()
}

#[tokio::test]
async fn a_preimage_alone_does_not_open_a_gate_on_a_custodian() {
    let town = Town::new(CUSTODIAN);
    let gate = town.gate(Access::uses(3));
    let paid = town.buy(&gate).await;
    let inner = ok();
    let mut service = inner.behind(&gate);
    let rows = [
        (State(InvoiceState::Open), 503, "payment_pending", Some("1"), false),
        (State(InvoiceState::Closed), 402, "not_paid", None, true),
        (State(InvoiceState::Unknown), 402, "not_paid", None, true),
        (Fails, 503, "backend_unavailable", Some("5"), false),
        (Panics, 503, "backend_unavailable", Some("5"), false),
    ];
    for (says, status, code, retry_after, sells) in rows {
        town.says(says);
        let response = call(&mut service, request(Some(&paid.credential()))).await.unwrap();
        assert_eq!(outcome(&response), (status, Some(code)), "{says:?}");
        assert_eq!(response.headers().get(RETRY_AFTER).map(|v| v.to_str().unwrap()), retry_after, "{says:?}");
        assert_eq!(response.headers().contains_key(WWW_AUTHENTICATE), sells, "{says:?}");
        town.clock.advance(Duration::from_secs(5));
    }
    assert_eq!(inner.calls(), 0);
    assert!(town.issuer.account(paid.hash()).await.unwrap().is_none(), "nothing was counted");

    town.says(State(InvoiceState::Settled));
    let response = call(&mut service, request(Some(&paid.credential()))).await.unwrap();
    assert_eq!((outcome(&response), inner.calls()), ((200, None), 1));
}

#[tokio::test]
async fn a_settled_token_is_asked_about_once() {
    let town = Town::new(CUSTODIAN);
    let gate = town.gate(Access::pass(MINUTE));
    let paid = town.buy(&gate).await;
    town.says(State(InvoiceState::Settled));
    assert_eq!(present(&gate, &paid.credential()).await.unwrap().basis(), Basis::Preimage);
    for says in [Fails, Hangs, State(InvoiceState::Unknown)] {
        town.says(says);
        let mut head = request(Some(&paid.credential())).into_parts().0;
        let mut admit = std::pin::pin!(gate.admit(&mut head));
        assert!(poll_once(admit.as_mut()).is_ready(), "it waits for nobody");
    }
    assert_eq!(town.asked(), 1);
    let other = town.buy(&gate).await;
    assert!(present(&gate, &other.credential()).await.is_err(), "another token has its own payment");
    assert_eq!(town.asked(), 2);
}

#[tokio::test]
async fn an_unpaid_token_is_asked_about_now_and_then() {
    // Whoever shows a preimage has paid, as likely as not: soon.
    let town = Town::new(CUSTODIAN);
    let gate = town.gate(Access::pass(MINUTE));
    let paid = town.buy(&gate).await;
    for (seconds, asked) in [(0, 1), (0, 1), (1, 2), (0, 2), (1, 3)] {
        town.clock.advance(Duration::from_secs(seconds));
        let refused = present(&gate, &paid.credential()).await.unwrap_err();
        assert_eq!((outcome(&refused), town.asked()), ((503, Some("payment_pending")), asked));
    }

    // A token alone: every five seconds.
    let town = Town::build(NODE, None, IssuerBuilder::with_settled_tokens);
    let gate = town.gate(Access::pass(MINUTE));
    let paid = town.buy(&gate).await;
    for (seconds, asked) in [(0, 1), (1, 1), (3, 1), (1, 2), (4, 2), (1, 3)] {
        town.clock.advance(Duration::from_secs(seconds));
        let refused = present(&gate, &alone(&paid)).await.unwrap_err();
        assert_eq!((code(&refused), town.asked()), (Some("payment_pending"), asked));
    }
    town.says(Fails);
    town.clock.advance(Duration::from_secs(5));
    for asked in [4, 5] {
        present(&gate, &alone(&paid)).await.unwrap_err();
        assert_eq!(town.asked(), asked, "a failure is no answer");
    }
}

#[tokio::test]
async fn fifty_requests_with_one_token_ask_once() {
    let town = Town::with_held(CUSTODIAN, None, Some(Notify::new()), |issuer| issuer);
    let gate = town.gate(Access::uses(50));
    let paid = town.buy(&gate).await;
    town.says(State(InvoiceState::Settled));
    let credential = paid.credential();
    let mut requests: Vec<_> = (0..50).map(|_| Box::pin(present(&gate, &credential))).collect();
    for request in &mut requests {
        assert!(poll_once(request.as_mut()).is_pending());
    }
    assert_eq!(town.asked(), 1);
    town.bank.held.as_ref().unwrap().notify_one();
    for request in requests {
        request.await.unwrap();
    }
    assert_eq!(town.asked(), 1);
}

#[tokio::test]
async fn when_who_asks_leaves_the_next_in_line_asks() {
    let town = Town::with_held(CUSTODIAN, None, Some(Notify::new()), |issuer| issuer);
    let gate = town.gate(Access::pass(MINUTE));
    let paid = town.buy(&gate).await;
    town.says(State(InvoiceState::Settled));
    let credential = paid.credential();
    let mut first = Box::pin(present(&gate, &credential));
    let mut second = Box::pin(present(&gate, &credential));
    assert!(poll_once(first.as_mut()).is_pending());
    assert!(poll_once(second.as_mut()).is_pending());
    drop(first);
    town.bank.held.as_ref().unwrap().notify_one();
    assert!(second.await.is_ok());
    assert_eq!(town.asked(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_hangs_is_given_up_for_all_who_wait() {
    let town = Town::new(CUSTODIAN);
    let gate = town.gate(Access::pass(MINUTE));
    let paid = town.buy(&gate).await;
    town.says(Hangs);
    let began = tokio::time::Instant::now();
    let credential = Arc::new(paid.credential());
    let waiting: Vec<_> = (0..100)
        .map(|_| {
            let (gate, credential) = (gate.clone(), credential.clone());
            tokio::spawn(async move { present(&gate, &credential).await })
        })
        .collect();
    for request in waiting {
        let refused = request.await.unwrap().unwrap_err();
        assert_eq!(outcome(&refused), (503, Some("backend_unavailable")));
        let cause = refused.extensions().get::<Cause>().unwrap();
        let cause = cause.error().downcast_ref::<BackendError>().unwrap();
        assert_eq!(cause.kind(), BackendErrorKind::Timeout);
    }
    assert!(began.elapsed() <= Duration::from_secs(10), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_node_is_asked_only_where_the_operator_says_so() {
    let town = Town::new(NODE);
    let paid = town.buy(&town.gate(Access::pass(MINUTE))).await;
    assert!(present(&town.gate(Access::pass(MINUTE)), &paid.credential()).await.is_ok());
    assert_eq!(town.asked(), 0);

    let town = Town::build(NODE, None, IssuerBuilder::with_strict_settlement);
    let gate = town.gate(Access::pass(MINUTE));
    let paid = town.buy(&gate).await;
    let refused = present(&gate, &paid.credential()).await.unwrap_err();
    assert_eq!((outcome(&refused), town.asked()), ((503, Some("payment_pending")), 1));
}

type Configure = fn(IssuerBuilder) -> IssuerBuilder;

#[test]
fn an_issuer_that_could_not_ask_does_not_build() {
    let mute_node = Capabilities::node(Network::Regtest);
    let mute_custodian = Capabilities::custodian(Network::Regtest);
    let rows: [(Capabilities, Configure, bool); 7] = [
        (mute_node, |issuer| issuer, true),
        (mute_node, IssuerBuilder::with_strict_settlement, false),
        (mute_node, IssuerBuilder::with_settled_tokens, false),
        (mute_custodian, |issuer| issuer, false),
        (NODE, IssuerBuilder::with_strict_settlement, true),
        (NODE, IssuerBuilder::with_settled_tokens, true),
        (BY_HANDLE, |issuer| issuer, true),
    ];
    for (capabilities, configure, builds) in rows {
        let bank = Bank {
            wallet: DevBackend::new(),
            capabilities,
            handle: None,
            says: Mutex::new(Fails),
            asked: Mutex::default(),
            held: None,
        };
        let built = configure(Issuer::builder(keys(), bank).with_network(Network::Regtest)).build();
        assert_eq!(built.is_ok(), builds, "{capabilities:?}");
        if let Err(error) = built {
            assert_eq!(error.kind(), ErrorKind::Backend);
            assert!(error.to_string().contains("with_look_up"), "{error}");
        }
    }
}

#[tokio::test]
async fn a_token_alone_is_refused_unless_the_operator_allows_it() {
    for town in [Town::new(NODE), Town::new(CUSTODIAN)] {
        town.says(State(InvoiceState::Settled));
        let gate = town.gate(Access::pass(MINUTE));
        let paid = town.buy(&gate).await;
        let refused = present(&gate, &alone(&paid)).await.unwrap_err();
        assert_eq!((outcome(&refused), town.asked()), ((401, Some("missing_preimage")), 0));
    }
}

#[tokio::test]
async fn a_token_alone_is_admitted_once_its_invoice_is_settled() {
    let town = Town::build(NODE, None, IssuerBuilder::with_settled_tokens);
    let gate = town.gate(Access::uses(2));
    let paid = town.buy(&gate).await;

    let refused = present(&gate, &alone(&paid)).await.unwrap_err();
    assert_eq!(outcome(&refused), (503, Some("payment_pending")));
    town.says(State(InvoiceState::Settled));
    town.clock.advance(Duration::from_secs(5));

    let grant = present(&gate, &alone(&paid)).await.unwrap();
    assert_eq!((grant.basis(), grant.is_paid(), grant.remaining()), (Basis::Settled, true, Some(1)));
    let hex = hex::encode(paid.token.as_bytes());
    let mut head = request(None).into_parts().0;
    head.headers.insert("macaroon", hex.parse().unwrap());
    assert_eq!(gate.admit(&mut head).await.unwrap().grant().basis(), Basis::Settled);
    let refused = present(&gate, &alone(&paid)).await.unwrap_err();
    assert_eq!(code(&refused), Some("used_up"), "its uses are counted like any other's");
    assert_eq!(town.asked(), 2);

    // With its preimage it proves itself, as before.
    let other = town.buy(&gate).await;
    town.says(Fails);
    assert_eq!(present(&gate, &other.credential()).await.unwrap().basis(), Basis::Preimage);
}

#[tokio::test]
async fn what_looks_like_a_token_alone_is_refused_as_ever() {
    let town = Town::build(NODE, None, IssuerBuilder::with_settled_tokens);
    town.says(State(InvoiceState::Settled));
    let gate = town.gate(Access::pass(MINUTE));
    let paid = town.buy(&gate).await;
    let token = paid.token.to_base64();
    let other = town.buy(&gate).await.preimage.to_hex();
    let rows = [
        (format!("L402 {token}:"), "missing_preimage"),
        (format!("L402 {token}:00"), "malformed_preimage"),
        (format!("L402 {token}:{other}"), "wrong_preimage"),
        (format!("L402 {}", "A".repeat(200)), "missing_preimage"),
        ("L402 ".to_owned(), "missing_preimage"),
        (format!("L402 {token}, L402 {token}:{}", paid.preimage.to_hex()), "two_credentials"),
        (format!("L402 {token},{token}"), "several_tokens"),
    ];
    for (credential, expected) in rows {
        let refused = present(&gate, &credential.parse().unwrap()).await.unwrap_err();
        assert_eq!(outcome(&refused), (401, Some(expected)), "{credential}");
    }
    assert_eq!(town.asked(), 0);
}

#[tokio::test]
async fn who_asks_without_a_preimage_takes_a_place_among_those_who_ask_for_invoices() {
    let town = Town::with_held(NODE, None, Some(Notify::new()), |issuer| {
        issuer.with_settled_tokens().with_strict_settlement().with_invoice_limits(1, MINUTE)
    });
    let gate = town.gate(Access::pass(MINUTE));
    let (first, second) = (town.buy(&gate).await, town.buy(&gate).await);
    let first_alone = alone(&first);
    let mut asks = Box::pin(present(&gate, &first_alone));
    assert!(poll_once(asks.as_mut()).is_pending());
    let refused = present(&gate, &alone(&second)).await.unwrap_err();
    assert_eq!(outcome(&refused), (503, Some("busy")));
    let with_preimage = second.credential();
    let mut paid = Box::pin(present(&gate, &with_preimage));
    assert!(poll_once(paid.as_mut()).is_pending(), "a preimage asks beside them");
    assert_eq!(town.asked(), 2);
}

#[tokio::test]
async fn the_handle_of_an_invoice_travels_in_its_token() {
    let town = Town::build(BY_HANDLE, Some("https://bank.example/verify/1"), |issuer| issuer);
    let gate = town.gate(Access::pass(MINUTE));
    let paid = town.buy(&gate).await;
    town.says(State(InvoiceState::Settled));
    let refused = present(&gate, &paid.with_caveat("invoice_handle=other").credential()).await.unwrap_err();
    assert_eq!((outcome(&refused), town.asked()), ((402, Some("invalid_caveat")), 0));
    assert!(present(&gate, &paid.credential()).await.is_ok());
    let asked = (paid.hash(), Some("https://bank.example/verify/1".to_owned()));
    assert_eq!(*town.bank.asked.lock().unwrap(), [asked]);
}

#[tokio::test]
async fn a_token_of_another_backend_is_not_paid_for() {
    let node = Town::new(NODE);
    let paid = node.buy(&node.gate(Access::pass(MINUTE))).await;
    let town = Town::build(BY_HANDLE, Some("inv_1"), |issuer| issuer);
    town.says(State(InvoiceState::Settled));
    let refused = present(&town.gate(Access::pass(MINUTE)), &paid.credential()).await.unwrap_err();
    assert_eq!((outcome(&refused), town.asked()), ((402, Some("not_paid")), 0));
}

#[tokio::test]
async fn an_invoice_that_could_not_be_found_again_is_not_sold() {
    let long = "x".repeat(257).leak();
    for handle in [None, Some(""), Some("two words"), Some("line\nbreak"), Some("ümlaut"), Some(&*long)] {
        let town = Town::build(BY_HANDLE, handle, |issuer| issuer);
        let gate = town.gate(Access::pass(MINUTE));
        let refused = gate.admit(&mut request(None).into_parts().0).await.unwrap_err();
        assert_eq!(outcome(&refused), (503, Some("backend_unavailable")), "{handle:?}");
        assert!(!refused.headers().contains_key(WWW_AUTHENTICATE));
    }
    let longest = "x".repeat(256).leak();
    let town = Town::build(BY_HANDLE, Some(longest), |issuer| issuer);
    assert!(town.buy(&town.gate(Access::pass(MINUTE))).await.token.as_bytes().len() < 2048);
}

#[tokio::test]
async fn an_inner_gate_knows_what_the_outer_one_asked() {
    let town = Town::new(CUSTODIAN);
    let offer = Offer::new(Price::sat(5), Access::uses(9)).with_capabilities(&["read", "write"]);
    let api = Gate::builder(&town.issuer, "api", offer);
    let read = api.clone().require_capability("read").build().unwrap();
    let write = api.require_capability("write").build().unwrap();
    let paid = town.buy(&read).await;
    town.says(State(InvoiceState::Settled));
    let inner = ok();
    let mut service = L402Layer::new(read).layer(inner.behind(&write));
    let response = call(&mut service, request(Some(&paid.credential()))).await.unwrap();
    assert_eq!((outcome(&response), inner.calls(), town.asked()), ((200, None), 1, 1));
}

#[tokio::test]
async fn what_is_left_of_an_unpaid_token_is_not_told() {
    let town = Town::new(CUSTODIAN);
    let gate = town.gate(Access::uses(3));
    let paid = town.buy(&gate).await;
    let ask = || request(Some(&paid.credential())).into_parts().0;
    let refused = gate.account(&mut ask()).await;
    assert_eq!(outcome(&refused), (503, Some("payment_pending")));
    town.says(State(InvoiceState::Settled));
    town.clock.advance(Duration::from_secs(5));
    assert_eq!(gate.account(&mut ask()).await.status(), 200);
}

#[tokio::test]
async fn a_test_credential_needs_no_payment_under_strict_settlement() {
    let town = Town::new(CUSTODIAN);
    town.says(Fails);
    let gate = town.gate(Access::uses(3));
    assert!(present(&gate, &gate.test_credential()).await.is_ok());
    assert_eq!(town.asked(), 0);
}

/// Never answers.
#[derive(Debug)]
struct Silent;
#[async_trait]
impl PaymentBackend for Silent {
    fn capabilities(&self) -> Capabilities {
        NODE
    }
    async fn create_invoice(&self, _: &InvoiceRequest) -> Result<Invoice, BackendError> {
        pending().await
    }
    async fn check_health(&self) -> Result<(), BackendError> {
        pending().await
    }
}

#[tokio::test(start_paused = true)]
async fn health_is_told_within_five_seconds() {
    let issuer = Town::new(NODE).issuer;
    assert_eq!(issuer.check_backend().await.unwrap_err().kind(), BackendErrorKind::Unsupported);
    let dev = Issuer::builder(keys(), DevBackend::new()).with_network(Network::Regtest).build().unwrap();
    dev.check_backend().await.unwrap();

    let silent = Issuer::builder(keys(), Silent).with_network(Network::Regtest).build().unwrap();
    let began = tokio::time::Instant::now();
    assert_eq!(silent.check_backend().await.unwrap_err().kind(), BackendErrorKind::Timeout);
    assert_eq!(began.elapsed(), Duration::from_secs(5));
}

#[tokio::test]
async fn neither_token_nor_preimage_reaches_the_inner_service() {
    let town = Town::build(NODE, None, IssuerBuilder::with_settled_tokens);
    town.says(State(InvoiceState::Settled));
    let gate = town.gate(Access::pass(MINUTE));
    let paid = town.buy(&gate).await;
    let inner = inner(|request| {
        assert!(request.headers().get(AUTHORIZATION).is_none());
        Response::new(String::new())
    });
    let response = call(&mut inner.behind(&gate), request(Some(&alone(&paid)))).await.unwrap();
    assert_eq!(response.status(), 200);
    let _: Preimage = paid.preimage;
}
