//! What a request may carry is bounded before any work is done on it.

#![allow(missing_docs)]

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use http::header::AUTHORIZATION;
use http::request::Parts;
use http::{HeaderValue, Request};
use l402::{
    Access, DAY, DevBackend, Gate, Issuer, KeyRing, Malformed, Network, Offer, Price, Refusal, RootKey,
};

fn gate() -> Gate {
    let issuer = Issuer::builder(KeyRing::new(RootKey::generate()), DevBackend::new())
        .with_network(Network::Regtest)
        .build()
        .unwrap();
    Gate::new(&issuer, "forecast", Offer::new(Price::sat(21), Access::pass(DAY))).unwrap()
}

fn head(lines: &[String]) -> Parts {
    let mut request = Request::get("/").body(()).unwrap();
    for line in lines {
        request.headers_mut().append(AUTHORIZATION, HeaderValue::from_str(line).unwrap());
    }
    request.into_parts().0
}

/// Judges a request that needs no waiting; `None` where it is admitted.
fn refusal(gate: &Gate, head: &mut Parts) -> Option<Refusal> {
    match pin!(gate.admit(head)).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Ok(_)) => None,
        Poll::Ready(Err(response)) => response.extensions().get().cloned(),
        Poll::Pending => panic!("it waits"),
    }
}

const TOO_LONG: Option<Refusal> = Some(Refusal::Malformed(Malformed::TooLong));

#[test]
fn a_credential_may_be_said_8_times() {
    let gate = gate();
    let credential = gate.test_credential().to_str().unwrap().to_owned();
    for (times, expected) in [(1, None), (2, None), (8, None), (9, TOO_LONG), (60, TOO_LONG)] {
        let lines = vec![credential.clone(); times];
        assert_eq!(refusal(&gate, &mut head(&lines)), expected, "{times} lines");
        if times < 20 {
            assert_eq!(refusal(&gate, &mut head(&[lines.join(", ")])), expected, "{times} in a line");
        }
    }
}

#[test]
fn a_line_with_a_credential_has_64_parts_at_most() {
    let gate = gate();
    let credential = gate.test_credential().to_str().unwrap().to_owned();
    for (commas, expected) in [(1, None), (63, None), (64, TOO_LONG), (8192, TOO_LONG)] {
        let before = format!("Basic x{}{credential}", ",".repeat(commas));
        assert_eq!(refusal(&gate, &mut head(&[before])), expected, "{commas} commas before it");
        let after = format!("{credential},Basic x{}", ",".repeat(commas - 1));
        assert_eq!(refusal(&gate, &mut head(&[after])), expected, "{commas} commas behind it");
    }
}

#[test]
fn a_line_of_another_scheme_is_left_alone_however_long() {
    let gate = gate();
    let credential = gate.test_credential().to_str().unwrap().to_owned();
    for foreign in
        [format!("Digest a=b{}", ", c=d".repeat(4000)), r#"Digest username="a,b" ,realm=c"#.to_owned()]
    {
        let mut head = head(&[foreign.clone(), credential.clone()]);
        assert_eq!(refusal(&gate, &mut head), None);
        let left: Vec<_> = head.headers.get_all(AUTHORIZATION).iter().collect();
        assert_eq!(left, [&foreign]);
    }
}
