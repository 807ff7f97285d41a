//! How often the way of a request through a gate asks for memory.
//!
//! The counting allocator counts on the measuring thread alone, so that other
//! tests do not disturb it. Requests are made, and results dropped, outside.

// With the feature `metrics` the labels of counters are allocated.
#![cfg(not(feature = "metrics"))]
#![allow(missing_docs)]

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::hint::black_box;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use allocation_counter::{AllocationInfo, measure};
use bytes::Bytes;
use http::header::{AUTHORIZATION, CACHE_CONTROL, VARY};
use http::request::Parts;
use http::{Extensions, HeaderMap, HeaderValue, Request, Response};
use l402::{
    Access, DAY, DevBackend, Gate, GateBuilder, Grant, Issuer, IssuerBuilder, KeyRing, L402Layer, Network,
    Offer, Price, RootKey,
};
use tower_layer::Layer;
use tower_service::Service;

fn builder() -> GateBuilder {
    of(|issuer| issuer)
}

fn of(configure: impl FnOnce(IssuerBuilder) -> IssuerBuilder) -> GateBuilder {
    let issuer =
        Issuer::builder(KeyRing::new(RootKey::generate()), DevBackend::new()).with_network(Network::Regtest);
    let issuer = configure(issuer).build().unwrap();
    let offer =
        Offer::new(Price::sat(21), Access::pass(DAY)).with_capabilities(&["read", "write"]).with_tier(2);
    Gate::builder(&issuer, "forecast", offer)
}

fn request(credential: HeaderValue) -> Request<()> {
    let mut request = Request::get("/forecast").header("accept", "*/*").body(()).unwrap();
    request.headers_mut().insert(AUTHORIZATION, credential);
    request
}

/// The answer of a future that needs no waiting.
fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("it waits"),
    }
}

/// What `run` gives, and what it allocated the second time it is run: the
/// first one pays for what is made once per process or thread (the keyed state
/// of the key generator, arc-swap's node).
fn counted<I, O>(input: impl Fn() -> I, mut run: impl FnMut(I) -> O) -> (O, AllocationInfo) {
    run(input());
    let (mut input, mut output) = (Some(input()), None);
    let counts = measure(|| output = input.take().map(&mut run));
    (output.expect("it was run"), counts)
}

#[test]
fn the_counter_counts() {
    let (_, counts) = counted(|| (), |()| Box::new([0_u8; 1000]));
    assert_eq!((counts.count_total, counts.bytes_max), (1, 1000));
}

#[test]
fn admitting_a_pass_allocates_nothing() {
    let gates = [
        ("with a hook", of(|issuer| issuer.on_event(|event| _ = black_box(event))).build().unwrap()),
        ("plain", builder().build().unwrap()),
        ("tier and capability", builder().require_tier(1).require_capability("write").build().unwrap()),
    ];
    for (name, gate) in gates {
        let head = || request(gate.test_credential()).into_parts().0;
        let admit = |mut head: Parts| (now(gate.admit(&mut head)).expect("admitted"), head);
        let ((admission, head), counts) = counted(head, admit);
        assert!(admission.grant().is_paid());
        assert!(!head.headers.contains_key(AUTHORIZATION));
        assert_eq!(counts.count_total, 0, "{name}");
    }
}

#[test]
fn the_layer_allocates_for_its_extension_and_its_response_headers_alone() {
    let gate = builder().build().unwrap();
    let mut bare = Handler;
    let mut paid = L402Layer::new(gate.clone()).layer(Handler);
    let request = || request(gate.test_credential());
    let (_, without) = counted(request, |request| now(bare.call(request)).unwrap());
    assert_eq!(without.count_total, 0);
    let (response, counts) = counted(request, |request| now(paid.call(request)).unwrap());
    assert_eq!(response.headers()[CACHE_CONTROL], "private");
    assert_eq!(response.headers()[VARY], "Authorization");

    let extension = || (Extensions::new(), Grant::test().build());
    let (_, insert) = counted(extension, |(mut extensions, grant)| {
        extensions.insert(grant);
        extensions
    });
    assert_eq!(insert.count_total, 3, "the map, its table, the boxed grant");

    let (_, headers) = counted(HeaderMap::new, |mut headers| {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("private"));
        headers.append(VARY, HeaderValue::from_static("Authorization"));
        headers
    });
    assert_eq!(headers.count_total, 2, "the index and the entries of a map that was empty");

    assert_eq!(counts.count_total, 3 + 2);
}

#[test]
fn where_the_maps_are_there_the_layer_allocates_for_the_grant_alone() {
    #[derive(Clone)]
    struct Other;

    let gate = builder().build().unwrap();
    let mut paid = L402Layer::new(gate.clone()).layer(Echo);
    let request = || {
        let mut request = request(gate.test_credential());
        request.extensions_mut().insert(Other);
        let response = Response::builder().header("content-type", "text/plain").body(()).unwrap();
        request.map(|()| response)
    };
    let (response, counts) = counted(request, |request| now(paid.call(request)).unwrap());
    assert_eq!(response.headers().len(), 3);
    assert_eq!(counts.count_total, 1, "the boxed grant");
}

#[test]
fn refusing_a_header_of_any_size_allocates_the_answer_alone() {
    let gate = builder().build().unwrap();
    for len in [8 << 10, 64 << 10, 1 << 20] {
        for credential in [
            format!("L402 {}:{}", "A".repeat(len), "0".repeat(64)),
            format!("L402 {}", "A".repeat(len)),
            format!("LSAT {}", "a,".repeat(len / 2)),
            format!("L402 {}", ":".repeat(len)),
            format!("Basic x, L402 {}", "A".repeat(len)),
        ] {
            let (response, counts) = refuse(&gate, &credential);
            assert_eq!(response.status(), 401, "{len}");
            assert!(counts.bytes_total < 2048, "{} bytes for a header of {len}", counts.bytes_total);
        }
    }
}

fn refuse(gate: &Gate, credential: &str) -> (Response<Bytes>, AllocationInfo) {
    let head = || request(HeaderValue::from_str(credential).unwrap()).into_parts().0;
    counted(head, |mut head| now(gate.admit(&mut head)).expect_err("refused"))
}

/// An inner service that allocates nothing.
#[derive(Clone)]
struct Handler;

impl Service<Request<()>> for Handler {
    type Response = Response<()>;
    type Error = Infallible;
    type Future = Ready<Result<Response<()>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<()>) -> Self::Future {
        ready(Ok(Response::new(())))
    }
}

/// Answers with the response that it was sent.
#[derive(Clone)]
struct Echo;

impl Service<Request<Response<()>>> for Echo {
    type Response = Response<()>;
    type Error = Infallible;
    type Future = Ready<Result<Response<()>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Response<()>>) -> Self::Future {
        assert!(request.extensions().get::<Grant>().is_some(), "the gate stands before it");
        ready(Ok(request.into_body()))
    }
}
