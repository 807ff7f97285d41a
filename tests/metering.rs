//! Uses are counted: never more than were sold, and charged by the rules.

#![allow(missing_docs)]

#[path = "support/svc.rs"]
mod svc;

use std::convert::Infallible;
use std::future::{Future, pending};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use l402::ledger::release_cap;
use l402::{Access, ChargeOn, DAY, Gate, HOUR, L402Layer, MINUTE, MemoryLedger, Offer, Price};
use svc::{
    NOW, Paid, Shop, call, code, header, inner, ok, outcome, poll_once, request, settle_tasks, status,
};
use tower::{Layer, service_fn};

#[tokio::test]
async fn the_101st_of_100_uses_is_refused() {
    let shop = Shop::new();
    let gate = shop.gate("svc", Access::uses(100).within(DAY));
    let paid = Paid::buy(&shop, &gate).await;
    let inner = ok();
    let mut service = inner.behind(&gate);
    for left in (0..100).rev() {
        let response = call(&mut service, request(Some(&paid.credential()))).await.unwrap();
        assert_eq!(outcome(&response), (200, None));
        assert_eq!(header(&response, "ratelimit").unwrap(), format!(r#""svc";r={left};t=86700"#));
        assert_eq!(header(&response, "ratelimit-policy"), Some(r#""svc";q=100"#));
    }
    for _ in 0..2 {
        let response = call(&mut service, request(Some(&paid.credential()))).await.unwrap();
        assert_eq!(outcome(&response), (402, Some("used_up")));
        assert_eq!(header(&response, "ratelimit"), None);
        assert_ne!(shop.pay(&response).hash(), paid.hash(), "a refusal sells another token");
    }
    assert_eq!(inner.calls(), 100);
    assert_eq!(shop.used(paid.hash()).await, 100);
    assert_eq!(shop.open().await, 0);
}

#[tokio::test]
async fn the_grant_says_what_is_left_after_this_use() {
    let shop = Shop::new();
    let gate = shop.gate("svc", Access::uses(3));
    let credential = gate.test_credential();
    for left in [2, 1, 0] {
        let admission = gate.admit(&mut request(Some(&credential)).into_parts().0).await.unwrap();
        assert_eq!(admission.grant().remaining(), Some(left));
        let _ = admission.settle(Response::new(()));
    }
    let pass = shop.gate("pass", Access::pass(HOUR));
    let admission = pass.admit(&mut request(Some(&pass.test_credential())).into_parts().0).await.unwrap();
    assert_eq!(admission.grant().remaining(), None);
    assert_eq!(header(&admission.settle(Response::new(())), "ratelimit"), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_of_20_parallel_requests_gets_the_last_use() {
    for round in 0..20 {
        let shop = Shop::new();
        let gate = shop.gate("svc", Access::uses(10));
        let credential = gate.test_credential();
        let inner = ok();
        for _ in 0..9 {
            call(&mut inner.behind(&gate), request(Some(&credential))).await.unwrap();
        }
        let barrier = Arc::new(tokio::sync::Barrier::new(20));
        let requests: Vec<_> = (0..20)
            .map(|_| {
                let (barrier, mut service) = (barrier.clone(), inner.behind(&gate));
                let request = request(Some(&credential));
                tokio::spawn(async move {
                    barrier.wait().await;
                    outcome(&call(&mut service, request).await.unwrap())
                })
            })
            .collect();
        let mut outcomes = Vec::new();
        for request in requests {
            outcomes.push(request.await.unwrap());
        }
        let admitted = outcomes.iter().filter(|outcome| **outcome == (200, None)).count();
        let used_up = outcomes.iter().filter(|outcome| **outcome == (402, Some("used_up"))).count();
        assert_eq!((admitted, used_up), (1, 19), "round {round}: {outcomes:?}");
        assert_eq!(inner.calls(), 10);
    }
}

/// An answer of the inner service.
type Answer = fn() -> Response<String>;

fn answer(status: u16, grpc: Option<&str>) -> Response<String> {
    let mut response = Response::builder().status(status);
    if let Some(grpc) = grpc {
        response = response.header("grpc-status", grpc);
    }
    response.body(String::new()).unwrap()
}

#[tokio::test]
async fn server_errors_cost_nothing_and_everything_else_a_use() {
    let rows: Vec<(u16, Option<String>, bool)> = [200, 204, 301, 304, 400, 401, 402, 404, 429, 499]
        .map(|status| (status, None, true))
        .into_iter()
        .chain([500, 501, 502, 503, 504, 599].map(|status| (status, None, false)))
        .chain((0..=16).map(|grpc| (200, Some(grpc.to_string()), ![2, 4, 8, 13, 14, 15].contains(&grpc))))
        .collect();
    for (status, grpc, charged) in rows {
        let shop = Shop::new();
        let gate = shop.gate("svc", Access::uses(10));
        let paid = Paid::buy(&shop, &gate).await;
        let inner = inner({
            let grpc = grpc.clone();
            move |_| answer(status, grpc.as_deref())
        });
        let response = call(&mut inner.behind(&gate), request(Some(&paid.credential()))).await.unwrap();
        assert_eq!(response.status(), status);
        let used = u64::from(charged);
        assert_eq!(shop.used(paid.hash()).await, used, "{status} {grpc:?}");
        assert_eq!(shop.open().await, 0);
        // What a release leaves, the ledger decides.
        assert_eq!(header(&response, "ratelimit"), charged.then_some(r#""svc";r=9;t=2592300"#));
        assert_eq!(header(&response, "ratelimit-policy"), charged.then_some(r#""svc";q=10"#));
    }
}

#[tokio::test]
async fn an_error_of_the_inner_service_passes_through_and_costs_nothing() {
    let shop = Shop::new();
    let gate = shop.gate("svc", Access::uses(10));
    let paid = Paid::buy(&shop, &gate).await;
    let failing = service_fn(|_: Request<()>| async { Err::<Response<String>, _>("broken") });
    let mut service = L402Layer::new(gate).layer(failing);
    assert_eq!(call(&mut service, request(Some(&paid.credential()))).await.unwrap_err(), "broken");
    assert_eq!((shop.used(paid.hash()).await, shop.open().await), (0, 0));
}

/// Turns a panic while the response is made into a 500, as layers above do.
async fn catch<F: Future>(future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    std::future::poll_fn(move |cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(output)) => Poll::Ready(Some(output)),
        Err(_) => Poll::Ready(None),
    })
    .await
}

/// Panics in `call`, at the first poll, or once it was pending.
fn panicking(
    after: usize,
) -> impl tower::Service<Request<()>, Response = Response<String>, Error = Infallible, Future: Send> + Clone + Send
{
    service_fn(move |_: Request<()>| {
        assert!(after > 0, "in call");
        let mut polls = 1;
        std::future::poll_fn(move |cx: &mut Context<'_>| {
            assert!(polls < after, "in poll {polls}");
            polls += 1;
            cx.waker().wake_by_ref();
            Poll::<Result<Response<String>, Infallible>>::Pending
        })
    })
}

#[tokio::test]
async fn a_panic_of_the_inner_service_costs_nothing() {
    for access in [Access::uses(10), Access::once()] {
        for after in 0..4 {
            let shop = Shop::new();
            let gate = shop.gate("svc", access);
            let paid = Paid::buy(&shop, &gate).await;
            let layer = L402Layer::new(gate);

            let mut service = layer.layer(panicking(after));
            let caught = catch(call(&mut service, request(Some(&paid.credential())))).await;
            assert!(caught.is_none(), "it panicked");
            drop(service);
            settle_tasks().await;
            assert_eq!((shop.used(paid.hash()).await, shop.open().await), (0, 0), "caught, after {after}");
        }
    }
}

#[tokio::test]
async fn a_panic_that_ends_the_task_costs_nothing() {
    for after in 0..4 {
        let shop = Shop::new();
        let gate = shop.gate("svc", Access::uses(10));
        let paid = Paid::buy(&shop, &gate).await;
        let mut service = L402Layer::new(gate).layer(panicking(after));
        let request = request(Some(&paid.credential()));
        let ended = tokio::spawn(async move { call(&mut service, request).await.map(|_| ()) }).await;
        assert!(ended.unwrap_err().is_panic());
        settle_tasks().await;
        assert_eq!((shop.used(paid.hash()).await, shop.open().await), (0, 0), "after {after}");
    }
}

#[test]
fn a_panic_outside_a_runtime_costs_nothing() {
    let shop = Shop::new();
    let gate = shop.gate("svc", Access::uses(10));
    let credential = gate.test_credential();
    let mut service = L402Layer::new(gate).layer(panicking(1));
    let mut response = pin!(call(&mut service, request(Some(&credential))));
    assert!(catch_unwind(AssertUnwindSafe(|| poll_once(response.as_mut()))).is_err());
    assert_eq!(poll_once(pin!(shop.open())), Poll::Ready(0));
}

/// What an inner service comes to.
type Outcome = fn() -> Result<Response<String>, &'static str>;

#[tokio::test]
async fn a_gate_charges_as_it_was_told() {
    let teapot_only = || ChargeOn::response(|head| head.status == 418);
    let rows: [(&str, ChargeOn, [u64; 5]); 3] = [
        //                                              200 404 418 500 error
        ("not server error", ChargeOn::NotServerError, [1, 1, 1, 0, 0]),
        ("admission", ChargeOn::Admission, [1, 1, 1, 1, 1]),
        ("response", teapot_only(), [0, 0, 1, 0, 0]),
    ];
    for (name, charge_on, charges) in rows {
        let answers: [Outcome; 5] = [
            || Ok(answer(200, None)),
            || Ok(answer(404, None)),
            || Ok(answer(418, None)),
            || Ok(answer(500, None)),
            || Err("broken"),
        ];
        for (i, (make, charge)) in answers.into_iter().zip(charges).enumerate() {
            let shop = Shop::new();
            let gate = Gate::builder(&shop.issuer, "svc", Offer::new(Price::sat(1), Access::uses(50)))
                .with_charge_on(charge_on.clone())
                .build()
                .unwrap();
            let paid = Paid::buy(&shop, &gate).await;
            let mut service =
                L402Layer::new(gate).layer(service_fn(move |_: Request<()>| async move { make() }));
            let _ = call(&mut service, request(Some(&paid.credential()))).await;
            assert_eq!(shop.used(paid.hash()).await, charge, "{name}, answer {i}");
            assert_eq!(shop.open().await, 0);
        }
    }
}

#[tokio::test]
async fn a_client_that_leaves_before_the_head_pays_for_once_alone() {
    let rows = [
        ("uses", Access::uses(2), ChargeOn::NotServerError, 0),
        ("once", Access::once(), ChargeOn::NotServerError, 1),
        ("uses, on admission", Access::uses(2), ChargeOn::Admission, 1),
        ("uses, by the response", Access::uses(2), ChargeOn::response(|_| true), 0),
        ("once, by the response", Access::once(), ChargeOn::response(|_| false), 1),
    ];
    for (name, access, charge_on, used) in rows {
        let shop = Shop::new();
        let gate = Gate::builder(&shop.issuer, "svc", Offer::new(Price::sat(1), access))
            .with_charge_on(charge_on)
            .build()
            .unwrap();
        let paid = Paid::buy(&shop, &gate).await;
        let hanging = service_fn(|_: Request<()>| pending::<Result<Response<String>, Infallible>>());
        let mut service = L402Layer::new(gate).layer(hanging);
        let mut response = Box::pin(call(&mut service, request(Some(&paid.credential()))));
        assert!(poll_once(response.as_mut()).is_pending());
        assert_eq!(shop.open().await, 1, "{name}");
        drop(response);
        assert_eq!((shop.used(paid.hash()).await, shop.open().await), (used, 0), "{name}");
    }
}

#[tokio::test]
async fn failures_are_free_up_to_the_cap_and_then_cost() {
    for sold in [1, 2, 7, 20, 50, 100, 1000, 1500] {
        let shop = Shop::new();
        let gate = shop.gate("svc", Access::uses(sold));
        let paid = Paid::buy(&shop, &gate).await;
        let inner = status(500);
        let mut service = inner.behind(&gate);
        let cap = if sold == 1 { 1 } else { (sold / 10).clamp(2, 100) };
        assert_eq!(release_cap(sold), cap);
        for n in 0..sold + cap {
            assert_eq!(shop.used(paid.hash()).await, n.saturating_sub(cap), "sold {sold}, request {n}");
            let response = call(&mut service, request(Some(&paid.credential()))).await.unwrap();
            assert_eq!(outcome(&response), (500, None), "sold {sold}, request {n}");
        }
        let response = call(&mut service, request(Some(&paid.credential()))).await.unwrap();
        assert_eq!(outcome(&response), (402, Some("used_up")));
        assert_eq!(inner.calls() as u64, sold + cap);
        assert_eq!(shop.open().await, 0);
    }
}

#[tokio::test]
async fn a_dropped_admission_stays_spent_and_a_released_one_does_not() {
    for access in [Access::once(), Access::uses(5)] {
        let shop = Shop::new();
        let gate = shop.gate("svc", access);
        let paid = Paid::buy(&shop, &gate).await;
        let admit = async || gate.admit(&mut request(Some(&paid.credential())).into_parts().0).await.unwrap();
        admit().await.release();
        assert_eq!((shop.used(paid.hash()).await, shop.open().await), (0, 0));
        drop(admit().await);
        assert_eq!((shop.used(paid.hash()).await, shop.open().await), (1, 0));
    }
}

#[tokio::test]
async fn an_admission_settles_by_the_response() {
    let rows: [(Answer, u64); 3] =
        [(|| answer(200, None), 1), (|| answer(500, None), 0), (|| answer(200, Some("14")), 0)];
    for (answer, used) in rows {
        let shop = Shop::new();
        let gate = shop.gate("svc", Access::uses(5));
        let paid = Paid::buy(&shop, &gate).await;
        let mut head = request(Some(&paid.credential())).into_parts().0;
        let response = gate.admit(&mut head).await.unwrap().settle(answer());
        assert_eq!(header(&response, "cache-control"), Some("private"));
        assert_eq!(header(&response, "vary"), Some("Authorization"));
        assert_eq!((shop.used(paid.hash()).await, shop.open().await), (used, 0));
    }
}

#[tokio::test]
async fn a_closure_that_panics_over_the_response_charges_nothing_in_the_service() {
    let shop = Shop::new();
    let gate = Gate::builder(&shop.issuer, "svc", Offer::new(Price::sat(1), Access::uses(5)))
        .with_charge_on(ChargeOn::response(|_| panic!("no rule for this")))
        .build()
        .unwrap();
    let paid = Paid::buy(&shop, &gate).await;
    let mut service = status(200).behind(&gate);
    assert!(catch(call(&mut service, request(Some(&paid.credential())))).await.is_none());
    settle_tasks().await;
    assert_eq!((shop.used(paid.hash()).await, shop.open().await), (0, 0));
}

#[tokio::test]
async fn a_holder_lowers_the_count_for_whoever_gets_the_token() {
    let shop = Shop::new();
    let gate = shop.gate("svc", Access::uses(10));
    let paid = Paid::buy(&shop, &gate).await;
    let lowered = paid.with_caveat("svc_max_uses=3");
    let raised = lowered.with_caveat("svc_max_uses=1000");
    let mut service = ok().behind(&gate);
    for left in [2, 1, 0] {
        let response = call(&mut service, request(Some(&raised.credential()))).await.unwrap();
        assert_eq!(header(&response, "ratelimit").unwrap(), format!(r#""svc";r={left};t=2592300"#));
        assert_eq!(header(&response, "ratelimit-policy"), Some(r#""svc";q=3"#));
    }
    for token in [&lowered, &raised] {
        let response = call(&mut service, request(Some(&token.credential()))).await.unwrap();
        assert_eq!(outcome(&response), (402, Some("used_up")));
    }
    for left in (0..7).rev() {
        let response = call(&mut service, request(Some(&paid.credential()))).await.unwrap();
        assert_eq!(header(&response, "ratelimit").unwrap(), format!(r#""svc";r={left};t=2592300"#));
    }
    let response = call(&mut service, request(Some(&paid.credential()))).await.unwrap();
    assert_eq!(outcome(&response), (402, Some("used_up")));
}

#[tokio::test]
async fn a_holder_that_allows_no_use_allows_none() {
    let shop = Shop::new();
    let gate = shop.gate("svc", Access::uses(10));
    let none = Paid::buy(&shop, &gate).await.with_caveat("svc_max_uses=0");
    let response = call(&mut ok().behind(&gate), request(Some(&none.credential()))).await.unwrap();
    assert_eq!(outcome(&response), (402, Some("used_up")));
}

#[tokio::test]
async fn a_restart_ends_metered_tokens_of_a_memory_ledger_and_no_pass() {
    let before = Shop::new();
    let uses = before.gate("uses", Access::uses(10)).test_credential();
    let pass = before.gate("pass", Access::pass(DAY)).test_credential();

    let after = Shop::new();
    let (uses_gate, pass_gate) =
        (after.gate("uses", Access::uses(10)), after.gate("pass", Access::pass(DAY)));
    let inner = ok();
    let response = call(&mut inner.behind(&uses_gate), request(Some(&uses))).await.unwrap();
    assert_eq!(outcome(&response), (402, Some("unknown_key")));
    assert_eq!(inner.calls(), 0);
    let response = call(&mut inner.behind(&pass_gate), request(Some(&pass))).await.unwrap();
    assert_eq!(outcome(&response), (200, None));
}

#[tokio::test]
async fn replicas_with_memory_ledgers_do_not_honour_each_others_counts() {
    let (one, two) = (Shop::new(), Shop::new());
    let (gate_one, gate_two) = (one.gate("svc", Access::uses(10)), two.gate("svc", Access::uses(10)));
    for (seller, other) in [(&gate_one, &gate_two), (&gate_two, &gate_one)] {
        let credential = seller.test_credential();
        let response = call(&mut ok().behind(seller), request(Some(&credential))).await.unwrap();
        assert_eq!(outcome(&response), (200, None));
        let response = call(&mut ok().behind(other), request(Some(&credential))).await.unwrap();
        assert_eq!(outcome(&response), (402, Some("unknown_key")));
    }
}

#[tokio::test]
async fn replicas_that_share_a_ledger_share_the_count() {
    let ledger = Arc::new(MemoryLedger::new());
    let (one, two) = (Shop::with_ledger(ledger.clone()), Shop::with_ledger(ledger));
    let (gate_one, gate_two) = (one.gate("svc", Access::uses(2)), two.gate("svc", Access::uses(2)));
    let credential = gate_one.test_credential();
    for (gate, expected) in
        [(&gate_one, (200, None)), (&gate_two, (200, None)), (&gate_one, (402, Some("used_up")))]
    {
        let response = call(&mut ok().behind(gate), request(Some(&credential))).await.unwrap();
        assert_eq!(outcome(&response), expected);
    }
}

/// Uses a gate so often that every shard of its ledger has purged what expired.
async fn purge(gate: &Gate) {
    for _ in 0..2000 {
        let mut head = request(Some(&gate.test_credential())).into_parts().0;
        gate.admit(&mut head).await.unwrap().release();
    }
}

#[tokio::test]
async fn a_clock_that_goes_back_revives_no_used_up_token() {
    let shop = Shop::new();
    let gate = shop.gate("svc", Access::uses(3).within(HOUR));
    let paid = Paid::buy(&shop, &gate).await;
    let mut service = ok().behind(&gate);
    for _ in 0..3 {
        call(&mut service, request(Some(&paid.credential()))).await.unwrap();
    }
    shop.clock.advance(DAY);
    assert!(shop.issuer.account(paid.hash()).await.unwrap().is_some());
    let response = call(&mut service, request(Some(&paid.credential()))).await.unwrap();
    assert_eq!(outcome(&response), (402, Some("expired")));
    purge(&gate).await;
    assert_eq!(shop.issuer.account(paid.hash()).await.unwrap(), None, "its row is gone");

    shop.clock.set(NOW + 60);
    let response = call(&mut service, request(Some(&paid.credential()))).await.unwrap();
    assert_eq!(outcome(&response), (402, Some("expired")));
}

#[tokio::test]
async fn a_row_stays_while_its_token_is_good() {
    let shop = Shop::new();
    let gate = shop.gate("svc", Access::uses(3).within(DAY));
    let short = shop.gate("short", Access::uses(3).within(MINUTE));
    let paid = Paid::buy(&shop, &gate).await;
    let mut service = ok().behind(&gate);
    for _ in 0..3 {
        call(&mut service, request(Some(&paid.credential()))).await.unwrap();
    }
    shop.clock.advance(DAY);
    purge(&short).await;
    let response = call(&mut service, request(Some(&paid.credential()))).await.unwrap();
    assert_eq!(outcome(&response), (402, Some("used_up")));
}

#[tokio::test]
async fn a_holder_who_shortens_a_token_does_not_shorten_its_account() {
    let shop = Shop::new();
    let gate = shop.gate("svc", Access::uses(3).within(DAY));
    let paid = Paid::buy(&shop, &gate).await;
    let short = paid.with_caveat(&format!("svc_valid_until={}", NOW + 10));
    let inner = ok();
    let mut service = inner.behind(&gate);
    for _ in 0..3 {
        let response = call(&mut service, request(Some(&short.credential()))).await.unwrap();
        assert_eq!(outcome(&response), (200, None));
        assert!(header(&response, "ratelimit").unwrap().ends_with("t=10"), "the caller's own end");
    }
    shop.clock.advance(HOUR);
    purge(&shop.gate("other", Access::uses(3))).await;
    let response = call(&mut service, request(Some(&paid.credential()))).await.unwrap();
    assert_eq!(outcome(&response), (402, Some("used_up")));
    assert_eq!(inner.calls(), 3);
}

#[tokio::test]
async fn a_response_that_comes_after_its_lease_is_spent_and_no_longer_listed() {
    let shop = Shop::new();
    let gate = shop.gate("svc", Access::uses(3));
    let paid = Paid::buy(&shop, &gate).await;
    let admit = async || gate.admit(&mut request(Some(&paid.credential())).into_parts().0).await.unwrap();
    let (good, bad) = (admit().await, admit().await);
    shop.clock.advance(l402::ledger::LEASE + Duration::from_secs(1));
    let _ = good.settle(answer(200, None));
    assert_eq!((shop.used(paid.hash()).await, shop.open().await), (2, 1));
    let _ = bad.settle(answer(500, None));
    assert_eq!(shop.used(paid.hash()).await, 2, "past the lease nothing is given back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn calls_never_exceed_what_was_sold_with_its_cap_under_any_mix_of_ends() {
    let shop = Shop::new();
    let gate = shop.gate("svc", Access::uses(50));
    let paid = Paid::buy(&shop, &gate).await;
    let calls = Arc::new(AtomicUsize::new(0));
    let mixed = service_fn({
        let calls = calls.clone();
        move |_: Request<()>| {
            let n = calls.fetch_add(1, Ordering::SeqCst);
            let answer: Pin<Box<dyn Future<Output = _> + Send>> = match n % 4 {
                0 => Box::pin(async { Ok(answer(200, None)) }),
                1 => Box::pin(async { Ok(answer(500, None)) }),
                2 => Box::pin(async { Err("broken") }),
                _ => Box::pin(pending()),
            };
            answer
        }
    });
    let requests: Vec<_> = (0..200)
        .map(|_| {
            let mut service = L402Layer::new(gate.clone()).layer(mixed.clone());
            let request = request(Some(&paid.credential()));
            tokio::spawn(async move {
                let mut response = Box::pin(call(&mut service, request));
                // Whoever is not answered at once leaves.
                match std::future::poll_fn(|cx| Poll::Ready(response.as_mut().poll(cx))).await {
                    Poll::Ready(Ok(response)) => code(&response),
                    _ => None,
                }
            })
        })
        .collect();
    let mut used_up = 0;
    for request in requests {
        used_up += u64::from(request.await.unwrap() == Some("used_up"));
    }
    settle_tasks().await;
    let calls = calls.load(Ordering::SeqCst) as u64;
    assert!(calls >= 50 && calls <= 50 + release_cap(50), "{calls}");
    assert_eq!(shop.open().await, 0);
    assert!(shop.used(paid.hash()).await <= 50);
    assert!(used_up + calls <= 200);
}

#[tokio::test]
async fn a_gate_that_takes_no_unit_tells_what_is_left_all_the_same() {
    let shop = Shop::new();
    let api = Gate::builder(&shop.issuer, "api", Offer::new(Price::sat(5), Access::balance(30)));
    let (looks, uses) = (api.clone().with_cost(0).build().unwrap(), api.with_cost(25).build().unwrap());
    let paid = Paid::buy(&shop, &uses).await;
    for (gate, left) in [(&looks, 30), (&uses, 5), (&looks, 5)] {
        let response = call(&mut ok().behind(gate), request(Some(&paid.credential()))).await.unwrap();
        assert_eq!(outcome(&response), (200, None));
        let account = looks.account(&mut request(Some(&paid.credential())).into_parts().0).await;
        let body = std::str::from_utf8(account.body()).unwrap();
        assert!(body.contains(&format!(r#""left":{left}"#)), "{body}");
    }
}

#[tokio::test]
async fn a_pass_that_many_share_stays_within_its_rate() {
    let shop = Shop::new();
    let gate = shop.gate("svc", Access::pass(HOUR).rate(10, MINUTE));
    let paid = Paid::buy(&shop, &gate).await;
    let inner = ok();
    for n in 0..1000 {
        let mut service = inner.behind(&gate);
        let response = call(&mut service, request(Some(&paid.credential()))).await.unwrap();
        if n < 10 {
            assert_eq!(outcome(&response), (200, None), "{n}");
        } else {
            assert_eq!(outcome(&response), (429, Some("rate_limited")), "{n}");
            assert_eq!(header(&response, "retry-after"), Some("6"));
            assert_eq!(header(&response, "www-authenticate"), None, "nothing is sold");
        }
    }
    assert_eq!(inner.calls(), 10);

    shop.clock.advance(Duration::from_secs(6));
    for status in [200, 429] {
        let response = call(&mut inner.behind(&gate), request(Some(&paid.credential()))).await.unwrap();
        assert_eq!(response.status(), status);
    }
    // Another pass has its own rate, and a holder widens none.
    let other = Paid::buy(&shop, &gate).await;
    let response = call(&mut inner.behind(&gate), request(Some(&other.credential()))).await.unwrap();
    assert_eq!(outcome(&response), (200, None));
    let wider = other.with_caveat("svc_rate=1000/60");
    let response = call(&mut inner.behind(&gate), request(Some(&wider.credential()))).await.unwrap();
    assert_eq!(outcome(&response), (402, Some("invalid_caveat")));
}

#[tokio::test]
async fn one_balance_pays_for_routes_of_different_cost() {
    let shop = Shop::new();
    let api = Gate::builder(&shop.issuer, "api", Offer::new(Price::sat(1_000), Access::balance(100)));
    let text = api.clone().with_cost(1).build().unwrap();
    let image =
        api.with_cost_fn(|head| if head.uri.query() == Some("hd") { 40 } else { 25 }).build().unwrap();
    let paid = Paid::buy(&shop, &text).await;
    let inner = ok();
    let ask = async |gate: &Gate, uri: &str| {
        let mut request = request(Some(&paid.credential()));
        *request.uri_mut() = uri.parse().unwrap();
        let response = call(&mut inner.behind(gate), request).await.unwrap();
        (response.status().as_u16(), header(&response, "ratelimit").map(str::to_owned))
    };
    let left = |left| Some(format!(r#""api";r={left};t=2592300"#));
    assert_eq!(ask(&text, "/").await, (200, left(99)));
    assert_eq!(ask(&image, "/").await, (200, left(74)));
    assert_eq!(ask(&image, "/?hd").await, (200, left(34)));
    assert_eq!(ask(&image, "/?hd").await, (402, None), "34 units are no 40");
    assert_eq!(ask(&image, "/").await, (200, left(9)));
    assert_eq!(ask(&text, "/").await, (200, left(8)));
    assert_eq!(shop.used(paid.hash()).await, 92);
}

#[tokio::test]
async fn a_cost_that_panics_is_a_500_and_takes_nothing() {
    let shop = Shop::new();
    let api = Gate::builder(&shop.issuer, "api", Offer::new(Price::sat(1_000), Access::balance(100)));
    let paid = Paid::buy(&shop, &api.clone().build().unwrap()).await;
    let gate = api.with_cost_fn(|_| panic!("the closure breaks")).build().unwrap();
    let inner = ok();
    for credential in [None, Some(&paid.credential())] {
        let response = call(&mut inner.behind(&gate), request(credential)).await.unwrap();
        assert_eq!(outcome(&response), (500, Some("price_failed")));
    }
    assert_eq!((inner.calls(), shop.used(paid.hash()).await), (0, 0));
}
