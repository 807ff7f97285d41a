//! What it costs to judge a request, beside the cryptography it cannot do without.
//!
//! Each case is a function from a number of iterations to the time they took.
//! Criterion gives the figures of each; after it, the cases that are compared
//! run in turns, and the ratios of their medians are printed.

#![allow(missing_docs)]

mod support;

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::hint::black_box;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use criterion::Criterion;
use http::request::Parts;
use http::{Request, Response};
use l402::macaroon::Macaroon;
use l402::{Access, Admission, DAY, Gate, L402Layer};
use support::{Token, credential, floor, gate, hmac, keyed, prepared};
use tokio::runtime;
use tower_layer::Layer;
use tower_service::Service;

type Case = Box<dyn FnMut(u64) -> Duration>;

/// Requests are made ready and put away in groups of this size, outside the
/// measured time. They fit into the first cache.
const GROUP: usize = 16;

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    let mut cases = cases();
    // `cargo bench --bench admit -- ratios` leaves the first part out.
    let ratios_alone = std::env::args().any(|arg| arg == "ratios");
    if !ratios_alone {
        for (name, case) in &mut cases {
            criterion.bench_function(name, |bencher| bencher.iter_custom(&mut *case));
        }
        criterion.final_summary();
    }
    // Any other argument is a filter of criterion's, or the trial run of `cargo test`.
    if ratios_alone || std::env::args().skip(1).eq(["--bench".to_owned()]) {
        compare(&mut cases);
    }
}

fn cases() -> Vec<(&'static str, Case)> {
    let pass = gate(Access::pass(DAY));
    let metered = gate(Access::uses(1_000_000_000_000).within(DAY));
    let credential = credential(&pass);
    let parts = Token::new(&credential);
    let broken = |credential: &str| refused(&pass, credential.to_owned());
    let (token, preimage) = credential["L402 ".len()..].split_once(':').expect("token:preimage");
    let altered = {
        let mut bytes = STANDARD.decode(token).expect("base64");
        *bytes.last_mut().expect("a signature") ^= 1;
        STANDARD.encode(bytes)
    };
    vec![
        ("floor", repeated(floor(&parts))),
        ("chain", chain(&parts)),
        ("verify", verify(&parts)),
        ("admit", admitted(&pass, credential.clone())),
        ("service", served(&pass, &credential)),
        ("admit_metered", admitted(&metered, support::credential(&metered))),
        ("refuse/8KiB", broken(&format!("L402 {}:{preimage}", "A".repeat(8192 - 70)))),
        ("refuse/64KiB", broken(&format!("L402 {}:{preimage}", "A".repeat(65536 - 70)))),
        ("refuse/no_preimage", broken(&format!("L402 {token}"))),
        ("refuse/not_hex", broken(&format!("L402 {token}:{}", "x".repeat(64)))),
        ("refuse/not_base64", broken(&format!("L402 {}*:{preimage}", &token[..token.len() - 1]))),
        ("refuse/no_macaroon", broken(&format!("L402 {}:{preimage}", "A".repeat(400)))),
        ("refuse/several_tokens", broken(&format!("L402 {token},{token}:{preimage}"))),
        ("refuse/two_credentials", broken(&format!("L402 {token}:{preimage}, LSAT {altered}:{preimage}"))),
        ("refuse/bad_signature", broken(&format!("L402 {altered}:{preimage}"))),
        ("refuse/wrong_preimage", broken(&format!("L402 {token}:{}", "0".repeat(64)))),
        // What is accepted costs more the longer it is, within the caps.
        ("longest/caveats", admitted(&pass, longest(&credential))),
        ("longest/said_again", admitted(&pass, [&*credential; 8].join(", "))),
        ("longest/line", admitted(&pass, format!("Basic x{}{credential}", ",".repeat(63)))),
        ("challenge", challenge()),
    ]
}

/// The head of a request as a client library sends it.
fn head(credential: &str) -> Parts {
    Request::get("http://localhost/forecast")
        .header("host", "localhost:3000")
        .header("user-agent", "bench/1.0")
        .header("accept", "*/*")
        .header("authorization", credential)
        .body(())
        .expect("a request")
        .into_parts()
        .0
}

/// The answer of a future that needs no waiting.
fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("it waits"),
    }
}

/// Times `run` alone: what it takes is made before, what it gives is dropped after.
fn timed<I, O>(iterations: u64, mut input: impl FnMut() -> I, mut run: impl FnMut(&mut I) -> O) -> Duration {
    let mut elapsed = Duration::ZERO;
    let (mut inputs, mut outputs) = (Vec::with_capacity(GROUP), Vec::with_capacity(GROUP));
    let mut left = usize::try_from(iterations).expect("a number of iterations");
    while left > 0 {
        let group = left.min(GROUP);
        left -= group;
        inputs.extend((0..group).map(|_| input()));
        let start = Instant::now();
        outputs.extend(inputs.iter_mut().map(&mut run));
        elapsed += start.elapsed();
        black_box(&outputs);
        inputs.clear();
        outputs.clear();
    }
    elapsed
}

fn repeated<T>(mut run: impl FnMut() -> T + 'static) -> Case {
    Box::new(move |iterations| {
        let start = Instant::now();
        for _ in 0..iterations {
            black_box(run());
        }
        start.elapsed()
    })
}

/// The chain of HMACs alone, from the token's own key.
fn chain(token: &Token) -> Case {
    let (root, generator) = prepared();
    let token = token.clone();
    let key = hmac(generator, &hmac(root, &token.identifier));
    repeated(move || {
        let first = hmac(keyed(black_box(&key)), black_box(&token.identifier));
        token.caveats.iter().fold(first, |signature, caveat| hmac(keyed(&signature), black_box(caveat)))
    })
}

/// `Macaroon::decode` and `Macaroon::verify`, from the token's root key.
fn verify(token: &Token) -> Case {
    let root_key = hmac(prepared().0, &token.identifier);
    let bytes = STANDARD.decode(&token.base64).expect("base64");
    repeated(move || {
        let macaroon = Macaroon::decode(black_box(&bytes)).expect("a macaroon");
        assert!(macaroon.verify(black_box(&root_key)), "the token is valid");
    })
}

/// The whole way from a credential in the headers to a grant. Where uses are
/// counted, each is committed too.
fn admitted(gate: &Gate, credential: String) -> Case {
    let gate = gate.clone();
    let is_metered = now(gate.admit(&mut head(&credential))).expect("admitted").grant().remaining().is_some();
    let admit = move |head: &mut Parts| -> Option<Admission> {
        let admission = now(gate.admit(black_box(head))).expect("admitted");
        // Dropping commits, and is part of the work.
        (!is_metered).then_some(admission)
    };
    Box::new(move |iterations| timed(iterations, || head(&credential), &admit))
}

/// The gate as tower middleware: from the request to the response, less what
/// the inner service does alone.
fn served(gate: &Gate, credential: &str) -> Case {
    let mut service = L402Layer::new(gate.clone()).layer(Handler);
    let head = head(credential);
    Box::new(move |iterations| {
        let request = || Request::from_parts(head.clone(), ());
        timed(iterations, request, |request| {
            let request = std::mem::replace(request, Request::new(()));
            let response = now(service.call(black_box(request))).expect("infallible");
            assert_eq!(response.status(), 200);
            response
        })
    })
}

/// An inner service that costs next to nothing.
#[derive(Clone)]
struct Handler;

impl Service<Request<()>> for Handler {
    type Response = Response<String>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<()>) -> Self::Future {
        ready(Ok(Response::new(String::new())))
    }
}

/// The credential with as many caveats as a token may have.
fn longest(credential: &str) -> String {
    let (token, preimage) = credential["L402 ".len()..].split_once(':').expect("token:preimage");
    let bytes = STANDARD.decode(token).expect("base64");
    let mut macaroon = Macaroon::decode(&bytes).expect("a macaroon").into_owned();
    while let Ok(longer) = macaroon.attenuate("services=forecast:0") {
        macaroon = longer;
    }
    format!("L402 {}:{preimage}", STANDARD.encode(macaroon.as_bytes()))
}

/// A request that is refused without a challenge.
fn refused(gate: &Gate, credential: String) -> Case {
    let gate = gate.clone();
    let refuse = move |head: &mut Parts| now(gate.admit(black_box(head))).expect_err("refused");
    assert_eq!(refuse(&mut head(&credential)).status(), 401, "{credential}");
    Box::new(move |iterations| timed(iterations, || head(&credential), &refuse))
}

/// A 402 with a fresh token and a signed invoice.
fn challenge() -> Case {
    let runtime = runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let (mut gate_in_use, mut asked) = (gate(Access::pass(DAY)), 0);
    Box::new(move |iterations| {
        // The backend remembers its invoices, so that it does not last.
        asked += iterations;
        if asked > 50_000 {
            (gate_in_use, asked) = (gate(Access::pass(DAY)), iterations);
        }
        let ask = |head: &mut Parts| -> Response<_> {
            runtime.block_on(gate_in_use.admit(black_box(head))).expect_err("a challenge")
        };
        assert_eq!(ask(&mut head("")).status(), 402);
        timed(iterations, || head(""), ask)
    })
}

/// Rounds and runs in a round are many and short, so that whatever else the
/// machine does falls on all cases alike.
const ROUNDS: usize = 2001;
const RUNS: u32 = 64;

/// Runs the cases in turns, and prints for each the median of its time and of
/// its ratio to the floor of the same round.
fn compare(cases: &mut [(&'static str, Case)]) {
    let mut samples = vec![Vec::with_capacity(ROUNDS); cases.len()];
    for _ in 0..ROUNDS {
        for ((name, case), samples) in cases.iter_mut().zip(&mut samples) {
            let runs = if *name == "challenge" { 1 } else { RUNS };
            samples.push(case(runs.into()).as_secs_f64() * 1e9 / f64::from(runs));
        }
    }
    let of = |name: &str| {
        let at = cases.iter().position(|(other, _)| *other == name).expect("a case");
        &*samples[at]
    };
    let ratio = |a: &str, b: &str| median(of(a).iter().zip(of(b)).map(|(a, b)| a / b).collect());

    println!("\nin turns, {ROUNDS} rounds of {RUNS} runs, medians");
    for (name, _) in cases.iter() {
        println!("{name:24} {:9.0} ns {:8.2} x floor", median(of(name).to_vec()), ratio(name, "floor"));
    }
    println!();
    println!("admit / floor = {:.2} (at most 1.50)", ratio("admit", "floor"));
    println!("verify / chain = {:.2}", ratio("verify", "chain"));
    println!("admit_metered / admit = {:.2}", ratio("admit_metered", "admit"));
    let refusals = cases.iter().filter(|(name, _)| name.starts_with("refuse/"));
    let slowest = refusals.map(|(name, _)| median(of(name).to_vec())).fold(0.0, f64::max);
    println!("slowest refusal = {:.2} us (at most 5)", slowest / 1000.0);
}

fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}
