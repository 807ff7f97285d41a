//! A ledger that fails admits nobody and harms nobody who was admitted.

#![allow(missing_docs)]

#[path = "support/faults.rs"]
mod faults;
#[path = "support/svc.rs"]
mod svc;

use std::convert::Infallible;
use std::error::Error as _;
use std::time::Duration;

use faults::{Fault, FaultyLedger, Op};
use http::{Request, Response};
use l402::ledger::LEASE;
use l402::{Access, Cause, DAY, L402Layer, Revocation};
use svc::{Paid, Shop, call, code, header, ok, outcome, poll_once, request, settle_tasks, status};
use tower::{Layer, service_fn};

fn shop(ledger: &FaultyLedger) -> Shop {
    Shop::with_ledger(ledger.clone())
}

#[tokio::test(start_paused = true)]
async fn a_use_that_cannot_be_reserved_is_refused_with_503() {
    for fault in Fault::ALL {
        for access in [Access::uses(5), Access::once()] {
            let ledger = FaultyLedger::new();
            let shop = shop(&ledger);
            let gate = shop.gate("svc", access);
            let paid = Paid::buy(&shop, &gate).await;
            let inner = ok();
            let mut service = inner.behind(&gate);
            ledger.set(Op::Reserve, Some(fault));
            let response = call(&mut service, request(Some(&paid.credential()))).await.unwrap();
            assert_eq!(outcome(&response), (503, Some("ledger_unavailable")), "{fault:?}");
            assert_eq!(header(&response, "retry-after"), Some("5"));
            assert_eq!(header(&response, "www-authenticate"), None, "an outage sells nothing");
            assert_eq!(header(&response, "cache-control"), Some("no-store"));
            assert_eq!(inner.calls(), 0);
            come_to_rest().await;
            assert_eq!((ledger.used(paid.hash()).await, ledger.open().await), (0, 0), "{fault:?}");

            ledger.set(Op::Reserve, None);
            let response = call(&mut service, request(Some(&paid.credential()))).await.unwrap();
            assert_eq!(outcome(&response), (200, None), "{fault:?}: the outage is over");
            assert_eq!(shop.wallet.payments(), 1);
        }
    }
}

/// Lets the tasks run, and those that are slow come to their end.
async fn come_to_rest() {
    settle_tasks().await;
    tokio::time::advance(Duration::from_secs(20)).await;
    settle_tasks().await;
}

#[tokio::test(start_paused = true)]
async fn an_outage_shows_its_cause_to_layers_above_and_not_to_the_client() {
    for fault in Fault::ALL {
        let ledger = FaultyLedger::new();
        let shop = shop(&ledger);
        let gate = shop.gate("svc", Access::uses(5));
        let credential = gate.test_credential();
        ledger.set(Op::Reserve, Some(fault));
        let response = gate.admit(&mut request(Some(&credential)).into_parts().0).await.unwrap_err();
        let cause = response.extensions().get::<Cause>().expect("an outage has a cause");
        assert_eq!(cause.to_string(), "ledger is unavailable");
        let source = cause.source().expect("the ledger said why").to_string();
        match fault {
            Fault::Error | Fault::LateError => assert_eq!(source, "store is down"),
            Fault::ErrorAfter => assert_eq!(source, "answer was lost"),
            Fault::Hang | Fault::HangAfter | Fault::Slow => assert!(source.contains("elapsed"), "{source}"),
            Fault::Panic | Fault::LatePanic => assert!(source.contains("panicked"), "{source}"),
        }
        let body = std::str::from_utf8(response.body()).unwrap();
        assert!(body.contains("ledger_unavailable"), "{body}");
        for hidden in ["store", "elapsed", "panicked", "lost"] {
            assert!(!body.contains(hidden), "{body}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_ledger_that_hangs_is_waited_for_five_seconds() {
    let ledger = FaultyLedger::new();
    let shop = shop(&ledger);
    let gate = shop.gate("svc", Access::uses(5));
    let credential = gate.test_credential();
    ledger.set(Op::Reserve, Some(Fault::Hang));
    let began = tokio::time::Instant::now();
    gate.admit(&mut request(Some(&credential)).into_parts().0).await.unwrap_err();
    let took = began.elapsed().as_millis();
    assert!((5000..5100).contains(&took), "{took} ms");
}

#[tokio::test(start_paused = true)]
async fn passes_go_on_while_the_ledger_is_down() {
    for fault in Fault::ALL {
        let ledger = FaultyLedger::new();
        let shop = shop(&ledger);
        for op in [Op::Reserve, Op::Commit, Op::Release, Op::Account] {
            ledger.set(op, Some(fault));
        }
        let gate = shop.gate("pass", Access::pass(DAY));
        let paid = Paid::buy(&shop, &gate).await;
        for status in [status(200), status(500)] {
            let response = call(&mut status.behind(&gate), request(Some(&paid.credential()))).await.unwrap();
            assert_eq!(code(&response), None);
            assert_eq!(status.calls(), 1);
        }
        assert!(ledger.calls(Op::Reserve).is_empty());
        let metered = shop.gate("svc", Access::uses(5));
        let refused = call(&mut ok().behind(&metered), request(None)).await.unwrap();
        assert_eq!(outcome(&refused), (402, Some("missing_credential")), "it goes on selling");
    }
}

#[tokio::test(start_paused = true)]
async fn a_use_that_cannot_be_ended_does_not_harm_the_response() {
    for fault in Fault::ALL {
        for (op, answer, charged) in [(Op::Commit, 200, true), (Op::Release, 500, false)] {
            let ledger = FaultyLedger::new();
            let shop = shop(&ledger);
            let gate = shop.gate("svc", Access::uses(5));
            let paid = Paid::buy(&shop, &gate).await;
            ledger.set(op, Some(fault));
            let mut service = status(answer).behind(&gate);
            let response = call(&mut service, request(Some(&paid.credential()))).await.unwrap();
            assert_eq!(outcome(&response), (answer, None), "{fault:?}");
            assert_eq!(header(&response, "ratelimit").is_some(), charged);
            assert!(response.extensions().get::<Cause>().is_none());
            come_to_rest().await;
            assert_eq!(ledger.calls(op).len(), 1);
            let given_back = !charged && fault.takes_effect();
            assert_eq!(ledger.used(paid.hash()).await, u64::from(!given_back), "{fault:?}");
            let open = usize::from(!fault.takes_effect());
            assert_eq!(ledger.open().await, open, "{fault:?}: left to its lease");

            ledger.set(op, None);
            let response = call(&mut service, request(Some(&paid.credential()))).await.unwrap();
            assert_eq!(outcome(&response), (answer, None));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_panics_over_a_broken_ledger_ends_like_any_panic() {
    for fault in Fault::ALL {
        let ledger = FaultyLedger::new();
        let shop = shop(&ledger);
        let gate = shop.gate("svc", Access::uses(5));
        let credential = gate.test_credential();
        ledger.set(Op::Release, Some(fault));
        let panics = service_fn(|request: Request<()>| async move {
            assert!(request.extensions().is_empty(), "handler is broken");
            Ok::<_, Infallible>(Response::new(String::new()))
        });
        let mut service = L402Layer::new(gate.clone()).layer(panics);
        let task = tokio::spawn({
            let credential = credential.clone();
            async move { call(&mut service, request(Some(&credential))).await.map(|_| ()) }
        });
        assert!(task.await.unwrap_err().is_panic());
        settle_tasks().await;
        assert_eq!(ledger.calls(Op::Release).len(), 1, "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_reserve_that_nobody_waited_for_leaves_nothing_reserved() {
    // It times out and is released; the slow one takes effect after that.
    let ledger = FaultyLedger::yielding();
    let shop = shop(&ledger);
    let gate = shop.gate("svc", Access::uses(5));
    let paid = Paid::buy(&shop, &gate).await;
    for fault in [Fault::Hang, Fault::HangAfter, Fault::Slow] {
        ledger.set(Op::Reserve, Some(fault));
        let mut head = request(Some(&paid.credential())).into_parts().0;
        assert_eq!(code(&gate.admit(&mut head).await.unwrap_err()), Some("ledger_unavailable"));
        come_to_rest().await;
        assert_eq!((ledger.used(paid.hash()).await, ledger.open().await), (0, 0), "{fault:?}");
    }
    assert_eq!(ledger.calls(Op::Reserve), ledger.calls(Op::Release), "each was released once");
}

#[tokio::test(start_paused = true)]
async fn revoking_and_reading_an_account_tell_of_the_outage() {
    for fault in Fault::ALL {
        let ledger = FaultyLedger::new();
        let shop = shop(&ledger);
        let gate = shop.gate("pass", Access::pass(DAY));
        let paid = Paid::buy(&shop, &gate).await;
        ledger.set(Op::Account, Some(fault));
        ledger.set(Op::Revoke, Some(fault));
        assert!(shop.issuer.account(paid.hash()).await.is_err(), "{fault:?}");
        assert!(shop.issuer.revoke(Revocation::Token(paid.hash())).await.is_err(), "{fault:?}");
        let response = call(&mut ok().behind(&gate), request(Some(&paid.credential()))).await.unwrap();
        assert_eq!(outcome(&response), (402, Some("revoked")), "this process remembers it");
    }
}

/// As many operations as may run at once.
const MAX_RUNNING: usize = 1024;

#[tokio::test(start_paused = true)]
async fn a_ledger_that_hangs_is_not_asked_without_bound_and_is_asked_again_after_the_lease() {
    let ledger = FaultyLedger::new();
    let shop = shop(&ledger);
    let gate = shop.gate("svc", Access::uses(100));
    let paid = Paid::buy(&shop, &gate).await;
    let inner = ok();
    ledger.set(Op::Reserve, Some(Fault::Hang));
    for _ in 0..MAX_RUNNING {
        let mut service = inner.behind(&gate);
        let mut response = Box::pin(call(&mut service, request(Some(&paid.credential()))));
        assert!(poll_once(response.as_mut()).is_pending());
    }
    assert_eq!(ledger.calls(Op::Reserve).len(), MAX_RUNNING);
    let began = tokio::time::Instant::now();
    for _ in 0..50 {
        let response = call(&mut inner.behind(&gate), request(Some(&paid.credential()))).await.unwrap();
        assert_eq!(outcome(&response), (503, Some("ledger_unavailable")));
        assert_eq!(header(&response, "retry-after"), Some("5"));
        assert!(response.extensions().get::<Cause>().is_some());
    }
    assert_eq!(began.elapsed(), Duration::ZERO, "refused at once");
    assert_eq!(ledger.calls(Op::Reserve).len(), MAX_RUNNING, "no more were begun");
    assert_eq!(ledger.calls(Op::Release).len(), MAX_RUNNING, "and what was not begun is not released");
    assert_eq!(inner.calls(), 0);

    ledger.set(Op::Reserve, None);
    settle_tasks().await;
    tokio::time::advance(LEASE + Duration::from_secs(1)).await;
    for _ in 0..20 {
        settle_tasks().await;
    }
    let response = call(&mut inner.behind(&gate), request(Some(&paid.credential()))).await.unwrap();
    assert_eq!(outcome(&response), (200, None));
}

#[tokio::test(start_paused = true)]
async fn uses_that_cannot_be_ended_are_left_to_their_lease_and_do_not_pile_up() {
    for (op, answer) in [(Op::Commit, 200), (Op::Release, 500)] {
        let ledger = FaultyLedger::new();
        let shop = shop(&ledger);
        let gate = shop.gate("svc", Access::uses(5000));
        let paid = Paid::buy(&shop, &gate).await;
        let inner = status(answer);
        let mut service = inner.behind(&gate);
        ledger.set(op, Some(Fault::Hang));
        for _ in 0..MAX_RUNNING + 50 {
            let response = call(&mut service, request(Some(&paid.credential()))).await.unwrap();
            assert_eq!(outcome(&response), (answer, None), "the response is unharmed");
        }
        assert_eq!(ledger.calls(op).len(), MAX_RUNNING, "what had no place was not begun");
        assert_eq!(ledger.open().await, MAX_RUNNING + 50);

        ledger.set(op, None);
        settle_tasks().await;
        tokio::time::advance(LEASE + Duration::from_secs(1)).await;
        for _ in 0..20 {
            settle_tasks().await;
        }
        call(&mut service, request(Some(&paid.credential()))).await.unwrap();
        assert_eq!(ledger.calls(op).len(), MAX_RUNNING + 1, "there is place again");
        assert_eq!(ledger.open().await, MAX_RUNNING + 50, "and the new one was ended");
    }
}
