//! A request that is dropped, at whatever await, leaves nothing reserved.

#![allow(missing_docs)]

#[path = "support/faults.rs"]
mod faults;
#[path = "support/svc.rs"]
mod svc;

use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use async_trait::async_trait;
use faults::{Fault, FaultyLedger, Op};
use http::{Request, Response};
use l402::ledger::ReservationId;
use l402::{
    Access, BackendError, Capabilities, ChargeOn, DevBackend, Gate, Invoice, InvoiceRequest, Issuer, KeyRing,
    L402Layer, Network, Offer, PaymentBackend, Price, RootKey,
};
use svc::{Paid, Shop, call, code, ok, outcome, poll_once, request, settle_tasks};
use tower::{Layer, service_fn};

/// Polls a future this often, with the tasks run in between, and drops it.
/// Gives what it came to, if it did.
async fn poll_and_drop<F: Future>(future: F, polls: usize) -> Option<F::Output> {
    let mut future = Box::pin(future);
    for _ in 0..polls {
        if let Poll::Ready(output) = poll_once(future.as_mut()) {
            return Some(output);
        }
        settle_tasks().await;
    }
    None
}

/// Polls a future this often, with nothing run in between, and drops it.
async fn poll_hastily_and_drop<F: Future>(future: F, polls: usize) -> Option<F::Output> {
    let mut future = Box::pin(future);
    for _ in 0..polls {
        if let Poll::Ready(output) = poll_once(future.as_mut()) {
            return Some(output);
        }
    }
    None
}

fn assert_ended_once(ledger: &FaultyLedger, n: usize) {
    let mut ended = ledger.calls(Op::Commit);
    ended.extend(ledger.calls(Op::Release));
    let reserved = ledger.calls(Op::Reserve);
    assert!(reserved.len() <= 1, "asked for one use, dropped after {n} polls");
    assert_eq!(ended, reserved, "ended once and no other, dropped after {n} polls");
}

/// What the inner service does before it answers 200: it is pending so often.
fn slow(
    pending: usize,
    calls: Arc<AtomicUsize>,
) -> impl tower::Service<Request<()>, Response = Response<String>, Error = Infallible, Future: Send> + Clone + Send
{
    service_fn(move |_: Request<()>| {
        calls.fetch_add(1, Ordering::SeqCst);
        let mut left = pending;
        std::future::poll_fn(move |cx: &mut Context<'_>| {
            if left == 0 {
                return Poll::Ready(Ok(Response::new(String::new())));
            }
            left -= 1;
            cx.waker().wake_by_ref();
            Poll::Pending
        })
    })
}

#[tokio::test]
async fn a_request_dropped_at_any_await_leaves_nothing_reserved() {
    let rows = [
        ("uses", Access::uses(5), ChargeOn::NotServerError, 0),
        ("once", Access::once(), ChargeOn::NotServerError, 1),
        ("uses, on admission", Access::uses(5), ChargeOn::Admission, 1),
    ];
    for hasty in [false, true] {
        for (name, access, charge_on, used_if_called) in &rows {
            let mut completed = false;
            let (mut left_before_inner, mut left_in_inner) = (0, 0);
            for n in 0..64 {
                let ledger = FaultyLedger::yielding();
                let shop = Shop::with_ledger(ledger.clone());
                let gate = Gate::builder(&shop.issuer, "svc", Offer::new(Price::sat(1), *access))
                    .with_charge_on(charge_on.clone())
                    .build()
                    .unwrap();
                let paid = Paid::buy(&shop, &gate).await;
                let calls = Arc::new(AtomicUsize::new(0));
                let mut service = L402Layer::new(gate).layer(slow(3, calls.clone()));
                let response = call(&mut service, request(Some(&paid.credential())));
                let response = if hasty {
                    poll_hastily_and_drop(response, n).await
                } else {
                    poll_and_drop(response, n).await
                };
                settle_tasks().await;

                assert_eq!(ledger.open().await, 0, "{name}: dropped after {n} polls");
                assert_ended_once(&ledger, n);
                let used = match (&response, calls.load(Ordering::SeqCst)) {
                    (Some(response), _) => {
                        assert_eq!(outcome(response.as_ref().unwrap()), (200, None));
                        completed = true;
                        1
                    }
                    (None, 0) => {
                        left_before_inner += 1;
                        0
                    }
                    (None, _) => {
                        left_in_inner += 1;
                        *used_if_called
                    }
                };
                assert_eq!(ledger.used(paid.hash()).await, used, "{name}: dropped after {n} polls");
                if completed {
                    break;
                }
            }
            if !hasty {
                assert!(completed, "{name}");
                assert!(left_before_inner >= 2 && left_in_inner >= 3, "{left_before_inner} {left_in_inner}");
            }
        }
    }
}

#[tokio::test]
async fn an_admission_dropped_at_any_await_leaves_nothing_reserved() {
    #[derive(Clone, Copy, Debug)]
    enum End {
        SettleGood,
        SettleBad,
        Release,
        Drop,
    }
    for end in [End::SettleGood, End::SettleBad, End::Release, End::Drop] {
        let mut completed = false;
        for n in 0..32 {
            let ledger = FaultyLedger::yielding();
            let shop = Shop::with_ledger(ledger.clone());
            let gate = shop.gate("svc", Access::uses(5));
            let paid = Paid::buy(&shop, &gate).await;
            let mut head = request(Some(&paid.credential())).into_parts().0;
            let admitted = poll_and_drop(gate.admit(&mut head), n).await;
            let mut used = 0;
            if let Some(admission) = admitted {
                completed = true;
                let admission = admission.unwrap();
                let answer = |status: u16| Response::builder().status(status).body(()).unwrap();
                match end {
                    End::SettleGood => drop(admission.settle(answer(200))),
                    End::SettleBad => drop(admission.settle(answer(500))),
                    End::Release => admission.release(),
                    End::Drop => drop(admission),
                }
                used = u64::from(matches!(end, End::SettleGood | End::Drop));
            }
            settle_tasks().await;
            assert_eq!(ledger.open().await, 0, "{end:?} after {n}");
            assert_ended_once(&ledger, n);
            assert_eq!(ledger.used(paid.hash()).await, used, "{end:?} after {n}");
            if completed {
                break;
            }
        }
        assert!(completed);
    }
}

#[tokio::test]
async fn a_request_refused_by_the_ledger_and_dropped_at_any_await_takes_nothing() {
    let mut completed = false;
    for n in 0..64 {
        let ledger = FaultyLedger::yielding();
        let shop = Shop::with_ledger(ledger.clone());
        let gate = shop.gate("svc", Access::once());
        let paid = Paid::buy(&shop, &gate).await;
        let _ = call(&mut ok().behind(&gate), request(Some(&paid.credential()))).await.unwrap();
        settle_tasks().await;
        let inner = ok();
        let mut service = inner.behind(&gate);
        let response = poll_and_drop(call(&mut service, request(Some(&paid.credential()))), n).await;
        settle_tasks().await;
        assert_eq!((ledger.used(paid.hash()).await, ledger.open().await), (1, 0), "after {n}");
        assert_eq!(inner.calls(), 0);
        if let Some(response) = response {
            assert_eq!(outcome(&response.unwrap()), (402, Some("used_up")));
            completed = true;
            break;
        }
    }
    assert!(completed);
}

/// A `DevBackend` that is pending three times before it makes an invoice.
#[derive(Clone, Debug)]
struct SlowBackend(DevBackend);

#[async_trait]
impl PaymentBackend for SlowBackend {
    fn capabilities(&self) -> Capabilities {
        self.0.capabilities()
    }

    async fn create_invoice(&self, ask: &InvoiceRequest) -> Result<Invoice, BackendError> {
        for _ in 0..3 {
            tokio::task::yield_now().await;
        }
        self.0.create_invoice(ask).await
    }
}

#[tokio::test]
async fn a_request_dropped_while_the_backend_is_asked_gives_its_place_back() {
    let issuer = Issuer::builder(KeyRing::new(RootKey::generate()), SlowBackend(DevBackend::new()))
        .with_network(Network::Regtest)
        .with_invoice_limits(1, std::time::Duration::from_secs(10))
        .build()
        .unwrap();
    let gate = Gate::new(&issuer, "svc", Offer::new(Price::sat(1), Access::pass(l402::DAY))).unwrap();
    let inner = ok();
    let mut service = inner.behind(&gate);
    let mut dropped = 0;
    for n in 0..32 {
        let response = poll_and_drop(call(&mut service, request(None)), n).await;
        if let Some(response) = &response {
            assert_eq!(outcome(response.as_ref().unwrap()), (402, Some("missing_credential")));
        }
        dropped += usize::from(response.is_none());
        let next = call(&mut service, request(None)).await.unwrap();
        assert_eq!(outcome(&next), (402, Some("missing_credential")), "after a drop at {n}");
        if response.is_some() {
            break;
        }
    }
    assert!(dropped >= 4, "{dropped}");
    assert_eq!(inner.calls(), 0);

    // While one waits, there is no place for another.
    let mut waiting = Box::pin(call(&mut service, request(None)));
    assert!(poll_once(waiting.as_mut()).is_pending());
    let mut other = inner.behind(&gate);
    assert_eq!(outcome(&call(&mut other, request(None)).await.unwrap()), (503, Some("busy")));
    drop(waiting);
    assert_eq!(code(&call(&mut other, request(None)).await.unwrap()), Some("missing_credential"));
}

/// Admits one request of a metered gate on a runtime of its own.
fn admit_in(runtime: &tokio::runtime::Runtime, ledger: &FaultyLedger) -> (Shop, Paid, l402::Admission) {
    let shop = Shop::with_ledger(ledger.clone());
    let (paid, admission) = runtime.block_on(async {
        let gate = shop.gate("svc", Access::uses(5));
        let paid = Paid::buy(&shop, &gate).await;
        let mut head = request(Some(&paid.credential())).into_parts().0;
        (paid, gate.admit(&mut head).await.unwrap())
    });
    (shop, paid, admission)
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn now<F: Future>(future: F) -> F::Output {
    match poll_once(pin!(future)) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("not ready"),
    }
}

#[test]
fn an_admission_ended_outside_the_runtime_is_ended_by_it() {
    for (status, used) in [(200, 1), (500, 0)] {
        for yields in [false, true] {
            let ledger = if yields { FaultyLedger::yielding() } else { FaultyLedger::new() };
            let runtime = runtime();
            let (_shop, paid, admission) = admit_in(&runtime, &ledger);
            let response = Response::builder().status(status).body(()).unwrap();
            std::thread::spawn(move || drop(admission.settle(response))).join().unwrap();
            runtime.block_on(settle_tasks());
            assert_eq!(now(ledger.open()), 0, "{status} {yields}");
            assert_eq!(now(ledger.used(paid.hash())), used);
        }
    }
}

#[test]
fn an_admission_dropped_after_its_runtime_does_not_panic() {
    for fault in [None, Some(Fault::Slow), Some(Fault::Hang), Some(Fault::LateError)] {
        for yields in [false, true] {
            let ledger = if yields { FaultyLedger::yielding() } else { FaultyLedger::new() };
            let runtime = runtime();
            let (_shop, paid, admission) = admit_in(&runtime, &ledger);
            drop(runtime);
            ledger.set(Op::Release, fault);
            admission.release();
            let at_once = fault.is_none() && !yields;
            assert_eq!(now(ledger.used(paid.hash())), u64::from(!at_once), "{fault:?} {yields}");
            assert_eq!(now(ledger.open()), usize::from(!at_once), "left to its lease");
        }
    }
}

#[test]
fn a_request_that_outlives_its_runtime_does_not_panic() {
    let ledger = FaultyLedger::yielding();
    let shop = Shop::with_ledger(ledger.clone());
    let runtime = runtime();
    let gate = shop.gate("svc", Access::uses(5));
    let paid = runtime.block_on(Paid::buy(&shop, &gate));
    let mut service = ok().behind(&gate);
    let mut response = Box::pin(call(&mut service, request(Some(&paid.credential()))));
    runtime.block_on(async { assert!(poll_once(response.as_mut()).is_pending()) });
    drop(runtime);
    drop(response);
    assert_eq!(now(ledger.used(paid.hash())), 0, "its reserve was never done");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn requests_dropped_at_random_on_many_threads_leave_nothing_reserved() {
    let ledger = FaultyLedger::yielding();
    let shop = Shop::with_ledger(ledger.clone());
    let gate = shop.gate("svc", Access::uses(1000));
    let paid = Paid::buy(&shop, &gate).await;
    let calls = Arc::new(AtomicUsize::new(0));
    let tasks: Vec<_> = (0..400)
        .map(|i| {
            let mut service = L402Layer::new(gate.clone()).layer(slow(i % 5, calls.clone()));
            let request = request(Some(&paid.credential()));
            tokio::spawn(async move {
                let mut response = pin!(call(&mut service, request));
                let mut polls = i % 17;
                std::future::poll_fn(move |cx| {
                    if polls == 0 {
                        return Poll::Ready(false);
                    }
                    polls -= 1;
                    cx.waker().wake_by_ref();
                    response.as_mut().poll(cx).map(|response| response.unwrap().status() == 200)
                })
                .await
            })
        })
        .collect();
    let mut answered = 0;
    for task in tasks {
        answered += u64::from(task.await.unwrap());
    }
    while !ledger.is_idle() {
        tokio::task::yield_now().await;
    }
    assert_eq!(ledger.open().await, 0);
    let (mut reserved, mut ended): (Vec<ReservationId>, Vec<_>) = (ledger.calls(Op::Reserve), Vec::new());
    ended.extend(ledger.calls(Op::Commit));
    ended.extend(ledger.calls(Op::Release));
    let key = |id: &ReservationId| *id.nonce();
    reserved.sort_by_key(key);
    ended.sort_by_key(key);
    assert_eq!(reserved, ended, "each was ended once");
    let released_beyond_cap = (ledger.calls(Op::Release).len() as u64).saturating_sub(100);
    let used = ledger.used(paid.hash()).await;
    assert!((answered..=answered + released_beyond_cap).contains(&used), "{answered} answered, {used} used");
}
