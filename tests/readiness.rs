//! What `poll_ready` reserved in the inner service is used once or given back.

#![allow(missing_docs)]

#[path = "support/faults.rs"]
mod faults;
#[path = "support/svc.rs"]
mod svc;

use std::cell::Cell;
use std::convert::Infallible;
use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use faults::{Fault, FaultyLedger, Op};
use http::{HeaderValue, Method, Request, Response};
use http_body::{Body as _, Frame};
use l402::{
    Access, BackendError, Capabilities, DAY, Gate, Grant, Invoice, InvoiceRequest, Issuer, KeyRing,
    L402Layer, Network, Offer, PaymentBackend, Price, RootKey,
};
use svc::{Inner, Shop, call, code, inner, is_ready, ok, outcome, poll_once, request, settle_tasks};
use tower::buffer::{Buffer, BufferLayer};
use tower::limit::ConcurrencyLimit;
use tower::timeout::TimeoutLayer;
use tower::util::{BoxCloneService, BoxService};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};

/// Every way in which a gate answers or admits: the request, and its status.
fn ways(shop: &Shop) -> Vec<(&'static str, Gate, Request<()>, u16)> {
    let pass = shop.gate("pass", Access::pass(DAY));
    let uses = shop.gate("uses", Access::uses(1000));
    let free = Gate::new(&shop.issuer, "free", Offer::new(Price::Free, Access::pass(DAY))).unwrap();
    let mut preflight = request(None);
    *preflight.method_mut() = Method::OPTIONS;
    preflight.headers_mut().insert("origin", HeaderValue::from_static("https://a.example"));
    preflight.headers_mut().insert("access-control-request-method", HeaderValue::from_static("GET"));
    let broken = HeaderValue::from_static("L402 x:y");
    vec![
        ("admitted at once", pass.clone(), request(Some(&pass.test_credential())), 200),
        ("admitted by the ledger", uses.clone(), request(Some(&uses.test_credential())), 200),
        ("admitted for nothing", free, request(None), 200),
        ("refused at once", pass.clone(), request(Some(&broken)), 401),
        ("a preflight", pass.clone(), preflight, 204),
        ("sold", pass, request(None), 402),
        ("sold after the ledger", uses.clone(), request(Some(&used_up(&uses))), 402),
    ]
}

/// A credential without a use left.
fn used_up(gate: &Gate) -> HeaderValue {
    let token = gate.test_credential();
    let text = token.to_str().unwrap();
    let (token, preimage) = text.strip_prefix("L402 ").unwrap().split_once(':').unwrap();
    let token = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, token).unwrap();
    let token = l402::macaroon::Macaroon::decode(&token).unwrap().attenuate("uses_max_uses=0").unwrap();
    token.credential(&l402::Preimage::from_hex(preimage).unwrap())
}

fn again(request: &Request<()>) -> Request<()> {
    let mut copy = Request::new(());
    *copy.method_mut() = request.method().clone();
    *copy.headers_mut() = request.headers().clone();
    copy
}

#[tokio::test]
async fn a_place_under_a_concurrency_limit_is_given_back_whatever_the_answer() {
    let shop = Shop::new();
    for (name, gate, request, status) in ways(&shop) {
        let limited = ConcurrencyLimit::new(ok(), 1);
        let mut service = L402Layer::new(gate).layer(limited.clone());
        let mut other = limited;
        for round in 0..5 {
            assert!(is_ready(&mut service), "{name}, round {round}");
            assert!(!is_ready(&mut other), "{name}: the one place is reserved");
            let response = service.call(again(&request)).await.unwrap();
            assert_eq!(response.status(), status, "{name}");
            drop(response);
            assert!(is_ready(&mut other), "{name}, round {round}: the place was not given back");
            // Hands the place back, for the next round.
            other = other.clone();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_place_under_a_concurrency_limit_is_given_back_after_an_outage() {
    for fault in Fault::ALL {
        let ledger = FaultyLedger::new();
        let shop = Shop::with_ledger(ledger.clone());
        let gate = shop.gate("svc", Access::uses(10));
        let credential = gate.test_credential();
        let inner = ok();
        let mut service = L402Layer::new(gate).layer(ConcurrencyLimit::new(inner.clone(), 1));
        ledger.set(Op::Reserve, Some(fault));
        for _ in 0..3 {
            let response = call(&mut service, request(Some(&credential))).await.unwrap();
            assert_eq!(response.status(), 503, "{fault:?}");
        }
        ledger.set(Op::Reserve, None);
        assert_eq!(call(&mut service, request(Some(&credential))).await.unwrap().status(), 200);
        assert_eq!(inner.calls(), 1);
    }
}

#[tokio::test]
async fn an_admitted_request_holds_its_place_until_it_is_answered() {
    let shop = Shop::new();
    for access in [Access::pass(DAY), Access::uses(1000)] {
        let gate = shop.gate(if access.max_uses().is_some() { "uses" } else { "pass" }, access);
        let credential = gate.test_credential();
        let (done, answer) = tokio::sync::watch::channel(false);
        let waits = service_fn(move |_: Request<()>| {
            let mut answer = answer.clone();
            async move {
                answer.wait_for(|done| *done).await.unwrap();
                Ok::<_, Infallible>(Response::new(String::new()))
            }
        });
        let mut service = L402Layer::new(gate).layer(ConcurrencyLimit::new(waits, 1));
        let mut clone = service.clone();
        assert!(is_ready(&mut service));
        let mut response = pin!(service.call(request(Some(&credential))));
        for _ in 0..5 {
            assert!(poll_once(response.as_mut()).is_pending());
            settle_tasks().await;
            assert!(!is_ready(&mut clone), "one place, one request");
        }
        done.send(true).unwrap();
        assert_eq!(response.await.unwrap().status(), 200);
        assert!(is_ready(&mut clone));
    }
}

#[tokio::test]
async fn a_request_dropped_at_any_await_gives_its_place_back() {
    for credential in [true, false] {
        for polls in 0..12 {
            let shop = Shop::with_ledger(FaultyLedger::yielding());
            let gate = shop.gate("svc", Access::uses(10));
            let credential = credential.then(|| gate.test_credential());
            let mut service = L402Layer::new(gate).layer(ConcurrencyLimit::new(ok(), 1));
            assert!(is_ready(&mut service));
            let mut response = Box::pin(service.call(request(credential.as_ref())));
            for _ in 0..polls {
                if poll_once(response.as_mut()).is_ready() {
                    break;
                }
                settle_tasks().await;
            }
            drop(response);
            assert!(is_ready(&mut service), "dropped after {polls} polls");
        }
    }
}

/// Panics when it is called without having been ready since the last call.
#[derive(Debug)]
struct Strict {
    ready: bool,
    /// Pending this often before it is ready.
    pending: usize,
    calls: Arc<AtomicUsize>,
}

impl Strict {
    fn new() -> Self {
        Self { ready: false, pending: 2, calls: Arc::default() }
    }
}

impl Clone for Strict {
    fn clone(&self) -> Self {
        Self { ready: false, pending: 2, calls: self.calls.clone() }
    }
}

impl Service<Request<()>> for Strict {
    type Response = Response<String>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Response<String>, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        if self.pending > 0 {
            self.pending -= 1;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<()>) -> Self::Future {
        assert!(std::mem::take(&mut self.ready), "called unready");
        self.pending = 2;
        self.calls.fetch_add(1, Ordering::SeqCst);
        std::future::ready(Ok(Response::new(String::new())))
    }
}

#[tokio::test]
async fn a_service_is_never_called_unready() {
    for yields in [false, true] {
        let shop = if yields { Shop::with_ledger(FaultyLedger::yielding()) } else { Shop::new() };
        for (_, gate, first, _) in ways(&shop) {
            let layer = L402Layer::new(gate.clone());
            let strict = Strict::new();
            // One service and its clones, called one after another, in turn.
            let mut services = vec![layer.layer(strict.clone())];
            services.push(services[0].clone());
            let mut admitted = 0;
            for round in 0..6 {
                let service = &mut services[round % 2];
                let response = call(service, again(&first)).await.unwrap();
                admitted += usize::from(response.status() == 200);
                if round == 3 {
                    let clone = service.clone();
                    services[0] = clone;
                }
            }
            assert_eq!(strict.calls.load(Ordering::SeqCst), admitted);
        }
        // All ways in turn, over one service each time.
        let strict = Strict::new();
        let forward = L402Layer::new(shop.gate("forward", Access::pass(DAY))).forward_preflight();
        let mut service = forward.layer(strict.clone());
        for (_, _, request, _) in ways(&shop).into_iter().filter(|way| way.0 == "a preflight") {
            assert_eq!(call(&mut service, request).await.unwrap().status(), 200);
        }
        assert_eq!(strict.calls.load(Ordering::SeqCst), 1);
    }
}

#[tokio::test]
async fn answers_of_all_kinds_follow_each_other_on_one_service() {
    let shop = Shop::with_ledger(FaultyLedger::yielding());
    let gate = shop.gate("svc", Access::uses(1000));
    let good = gate.test_credential();
    let broken = HeaderValue::from_static("L402 x:y");
    let strict = Strict::new();
    let mut service = L402Layer::new(gate).layer(ConcurrencyLimit::new(strict.clone(), 1));
    let mut seed = 12345_u32;
    let mut admitted = 0;
    for _ in 0..300 {
        seed = seed.wrapping_mul(1_103_515_245).wrapping_add(12345);
        let (credential, expected) = match (seed >> 16) % 3 {
            0 => (Some(&good), 200),
            1 => (Some(&broken), 401),
            _ => (None, 402),
        };
        admitted += usize::from(expected == 200);
        assert_eq!(call(&mut service, request(credential)).await.unwrap().status(), expected);
    }
    assert_eq!(strict.calls.load(Ordering::SeqCst), admitted);
}

#[tokio::test]
async fn two_requests_of_one_service_may_wait_at_once() {
    // The second is called while the first still waits for its ledger.
    let shop = Shop::with_ledger(FaultyLedger::yielding());
    let gate = shop.gate("svc", Access::uses(10));
    let credential = gate.test_credential();
    let strict = Strict::new();
    let mut service = L402Layer::new(gate).layer(ConcurrencyLimit::new(strict.clone(), 2));
    let mut responses = Vec::new();
    for _ in 0..2 {
        std::future::poll_fn(|cx| service.poll_ready(cx)).await.unwrap();
        responses.push(Box::pin(service.call(request(Some(&credential)))));
    }
    assert!(!is_ready(&mut service), "both places are taken");
    for response in &mut responses {
        assert!(poll_once(response.as_mut()).is_pending());
    }
    for response in responses {
        assert_eq!(response.await.unwrap().status(), 200);
    }
    assert_eq!(strict.calls.load(Ordering::SeqCst), 2);
}

/// Neither `Send` nor `Sync` nor `'static`, with bodies that are not either,
/// and have no `Default`.
struct Local<'a> {
    calls: Rc<Cell<usize>>,
    name: &'a str,
}

impl Clone for Local<'_> {
    fn clone(&self) -> Self {
        Self { calls: self.calls.clone(), name: self.name }
    }
}

struct LocalBody(Rc<Cell<Option<Bytes>>>);

impl http_body::Body for LocalBody {
    type Data = Bytes;
    type Error = Rc<str>;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Rc<str>>>> {
        Poll::Ready(self.0.take().map(|bytes| Ok(Frame::data(bytes))))
    }
}

/// A body of a request that is nothing at all.
struct Opaque<'a>(Rc<&'a str>);

impl<'a> Service<Request<Opaque<'a>>> for Local<'a> {
    type Response = Response<LocalBody>;
    type Error = Rc<str>;
    type Future = Pin<Box<dyn Future<Output = Result<Response<LocalBody>, Rc<str>>> + 'a>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Rc<str>>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Opaque<'a>>) -> Self::Future {
        let (calls, name) = (self.calls.clone(), self.name);
        Box::pin(async move {
            tokio::task::yield_now().await;
            calls.set(calls.get() + 1);
            let text = format!("{name} {}", request.body().0);
            Ok(Response::new(LocalBody(Rc::new(Cell::new(Some(text.into()))))))
        })
    }
}

#[tokio::test]
async fn an_inner_service_need_be_nothing_but_clone() {
    let (name, word) = (String::from("local"), String::from("word"));
    let shop = Shop::with_ledger(FaultyLedger::yielding());
    let calls = Rc::new(Cell::new(0));
    let gates = [shop.gate("pass", Access::pass(DAY)), shop.gate("uses", Access::uses(5))];
    for gate in gates {
        let mut service = L402Layer::new(gate.clone()).layer(Local { calls: calls.clone(), name: &name });
        let before = calls.get();
        let refused =
            service.ready().await.unwrap().call(Request::new(Opaque(Rc::new(&word)))).await.unwrap();
        assert_eq!(outcome(&refused), (402, Some("missing_credential")));
        assert_eq!(calls.get(), before);

        let (head, ()) = request(Some(&gate.test_credential())).into_parts();
        let request = Request::from_parts(head, Opaque(Rc::new(&word)));
        let response = service.ready().await.unwrap().call(request).await.unwrap();
        assert_eq!(calls.get(), before + 1);
        let mut body = pin!(response.into_body());
        let frame = std::future::poll_fn(|cx| body.as_mut().poll_frame(cx)).await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), "local word");
        assert!(std::future::poll_fn(|cx| body.as_mut().poll_frame(cx)).await.is_none());
    }
}

#[tokio::test]
async fn what_is_send_stays_send_in_any_stack() {
    fn assert_send<T: Send + 'static>(value: T) -> T {
        value
    }

    let shop = Shop::with_ledger(FaultyLedger::yielding());
    let gate = shop.gate("svc", Access::uses(100));
    let credential = gate.test_credential();
    let layer = L402Layer::new(gate);

    let mut boxed = assert_send(BoxCloneService::new(layer.layer(ok())));
    let mut above = Buffer::new(layer.layer(ok()), 8);
    let mut below = layer.layer(BoxCloneService::new(ok()));
    let mut stack = assert_send(
        ServiceBuilder::new()
            .layer(BufferLayer::<Request<()>>::new(8))
            .layer(TimeoutLayer::new(Duration::from_secs(5)))
            .layer(layer.clone())
            .concurrency_limit(1)
            .service(ok()),
    );
    for _ in 0..3 {
        for (credential, status) in [(Some(&credential), 200), (None, 402)] {
            assert_eq!(call(&mut boxed, request(credential)).await.unwrap().status(), status);
            assert_eq!(call(&mut above, request(credential)).await.unwrap().status(), status);
            assert_eq!(call(&mut below, request(credential)).await.unwrap().status(), status);
            assert_eq!(call(&mut stack, request(credential)).await.unwrap().status(), status);
            let response = BoxService::new(layer.layer(ok())).oneshot(request(credential)).await.unwrap();
            assert_eq!(response.status(), status);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_timeout_above_gives_a_use_back() {
    let shop = Shop::new();
    let gate = shop.gate("svc", Access::uses(5));
    let paid = svc::Paid::buy(&shop, &gate).await;
    let mut service = ServiceBuilder::new()
        .layer(TimeoutLayer::new(Duration::from_secs(3)))
        .layer(L402Layer::new(gate))
        .concurrency_limit(1)
        .service(service_fn(|_: Request<()>| std::future::pending::<Result<Response<String>, Infallible>>()));
    for _ in 0..2 {
        let error = call(&mut service, request(Some(&paid.credential()))).await.unwrap_err();
        assert!(error.is::<tower::timeout::error::Elapsed>());
        assert_eq!((shop.used(paid.hash()).await, shop.open().await), (0, 0));
    }
}

#[tokio::test]
async fn the_inner_service_sees_the_grant_and_no_credential() {
    let shop = Shop::new();
    for access in [Access::pass(DAY), Access::uses(5)] {
        let gate = shop.gate(if access.max_uses().is_some() { "uses" } else { "pass" }, access);
        let sees: Inner<_> = inner(|request: &Request<()>| {
            assert!(request.headers().is_empty(), "{:?}", request.headers());
            let grant = request.extensions().get::<Grant>().unwrap();
            assert!(grant.is_paid());
            Response::new(String::new())
        });
        let response = call(&mut sees.behind(&gate), request(Some(&gate.test_credential()))).await.unwrap();
        assert_eq!((response.status().as_u16(), code(&response)), (200, None));
        assert_eq!(sees.calls(), 1);
    }
}

#[tokio::test]
async fn an_error_of_readiness_is_the_inner_services_own() {
    #[derive(Clone)]
    struct Broken;

    impl Service<Request<()>> for Broken {
        type Response = Response<String>;
        type Error = &'static str;
        type Future = std::future::Ready<Result<Response<String>, &'static str>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), &'static str>> {
            Poll::Ready(Err("broken"))
        }

        fn call(&mut self, _: Request<()>) -> Self::Future {
            unreachable!("it was never ready")
        }
    }

    let shop = Shop::new();
    let mut service = L402Layer::new(shop.gate("svc", Access::pass(DAY))).layer(Broken);
    assert_eq!(service.ready().await.err(), Some("broken"));
}

/// A backend that never answers.
#[derive(Debug)]
struct HangingBackend;

#[async_trait]
impl PaymentBackend for HangingBackend {
    fn capabilities(&self) -> Capabilities {
        Capabilities::node(Network::Regtest)
    }

    async fn create_invoice(&self, _: &InvoiceRequest) -> Result<Invoice, BackendError> {
        std::future::pending().await
    }
}

#[tokio::test]
async fn a_request_that_only_buys_holds_no_place_of_one_that_paid() {
    let issuer = Issuer::builder(KeyRing::new(RootKey::generate()), HangingBackend)
        .with_network(Network::Regtest)
        .with_ledger(FaultyLedger::yielding())
        .build()
        .unwrap();
    let gate = Gate::new(&issuer, "uses", Offer::new(Price::sat(1), Access::uses(10))).unwrap();
    let good = gate.test_credential();
    for buyer in [None, Some(used_up(&gate))] {
        let mut service = L402Layer::new(gate.clone()).layer(ConcurrencyLimit::new(ok(), 1));
        assert!(is_ready(&mut service));
        let mut waiting = Box::pin(service.call(request(buyer.as_ref())));
        for _ in 0..5 {
            assert!(poll_once(waiting.as_mut()).is_pending());
            settle_tasks().await;
        }
        assert!(is_ready(&mut service), "the buyer waits for its invoice alone");
        assert_eq!(service.call(request(Some(&good))).await.unwrap().status(), 200);
        assert!(poll_once(waiting.as_mut()).is_pending());
    }
}
