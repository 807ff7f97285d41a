//! Everything that a gate does is told, once, and whoever listens changes nothing.

#![allow(missing_docs)]

#[path = "support/faults.rs"]
mod faults;
#[path = "support/svc.rs"]
mod svc;
#[path = "support/watch.rs"]
mod watch;

use std::convert::Infallible;
use std::future::pending;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::task::Poll;

use async_trait::async_trait;
use faults::{Fault, FaultyLedger, Op};
use http::{HeaderValue, Request, Response};
use l402::{
    Access, BackendError, BackendErrorKind, Capabilities, ChargeOn, ClientId, Currency, DAY, DevBackend,
    ExchangeRate, Gate, Grant, HOUR, Invoice, InvoiceRequest, InvoiceState, L402Layer, LookUpBy, MINUTE,
    MemoryLedger, Network, Offer, PaymentBackend, PaymentHash, Price,
};
use svc::{Paid, Shop, call, inner, ok, outcome, poll_once, request, settle_tasks, status};
use tower::{Layer, Service as _, service_fn};
use watch::{Told, shop, shop_with};

fn metered(shop: &Shop) -> Gate {
    shop.gate("svc", Access::uses(3).within(HOUR))
}

#[tokio::test]
async fn a_purchase_and_its_uses_are_told_in_order() {
    let told = Told::default();
    let shop = shop(&told);
    let mut service = ok().behind(&metered(&shop));
    let paid = shop.pay(&call(&mut service, request(None)).await.unwrap());
    assert_eq!(
        told.take(),
        ["backend create_invoice ok 0", "refusal svc missing_credential", "challenge svc default 21000"]
    );
    for left in [2, 1, 0] {
        assert_eq!(call(&mut service, request(Some(&paid.credential()))).await.unwrap().status(), 200);
        let admission = format!("admission svc default preimage 1 Some({left}) Some(7000)");
        let expected = ["ledger reserve ok 0", &admission, "settlement svc 1 charged", "ledger commit ok 0"];
        assert_eq!(told.take(), expected);
    }
    assert_eq!(call(&mut service, request(Some(&paid.credential()))).await.unwrap().status(), 402);
    assert_eq!(
        told.take(),
        [
            "ledger reserve ok 0",
            "backend create_invoice ok 0",
            "refusal svc used_up",
            "challenge svc default 21000"
        ]
    );
    let _ = shop.issuer.check_backend().await;
    let _ = shop.issuer.account(paid.hash()).await;
    assert_eq!(told.take(), ["backend check_health ok 0", "ledger account ok 0"]);
}

#[tokio::test]
async fn a_refusal_without_an_invoice_is_told_once() {
    let told = Told::default();
    let shop = shop(&told);
    let mut service = ok().behind(&metered(&shop));
    for (credential, code) in [
        ("L402 x", "missing_preimage"),
        ("L402 AAAA:0000000000000000000000000000000000000000000000000000000000000000", "malformed_macaroon"),
    ] {
        let credential = HeaderValue::from_static(credential);
        assert_eq!(call(&mut service, request(Some(&credential))).await.unwrap().status(), 401);
        assert_eq!(told.take(), [format!("refusal svc {code}")]);
    }
}

#[tokio::test]
async fn a_use_is_told_to_be_charged_or_given_back_however_it_ends() {
    let told = Told::default();
    let shop = shop(&told);
    let gate = metered(&shop);
    let always = Gate::builder(&shop.issuer, "always", Offer::new(Price::sat(3), Access::uses(9)))
        .with_charge_on(ChargeOn::Admission)
        .build()
        .unwrap();
    for (gate, name, given_back) in [(&gate, "svc", "given back"), (&always, "always", "charged")] {
        let credential = Paid::buy(&shop, gate).await.credential();
        let settled = |end: &str| {
            let lines = told.take_decisions();
            let ends: Vec<_> = lines.iter().filter(|line| line.starts_with("settlement")).collect();
            assert_eq!(ends, [&format!("settlement {name} 1 {end}")], "{lines:?}");
        };

        let admission = gate.admit(&mut request(Some(&credential)).into_parts().0).await.unwrap();
        drop(admission);
        settled("charged");
        let admission = gate.admit(&mut request(Some(&credential)).into_parts().0).await.unwrap();
        admission.release();
        settled("given back");

        let credential = Paid::buy(&shop, gate).await.credential();
        call(&mut status(404).behind(gate), request(Some(&credential))).await.unwrap();
        settled("charged");
        call(&mut status(500).behind(gate), request(Some(&credential))).await.unwrap();
        settled(given_back);
        let mut fails = L402Layer::new(gate.clone())
            .layer(service_fn(|_: Request<()>| async { Err::<Response<String>, _>("broken") }));
        call(&mut fails, request(Some(&credential))).await.unwrap_err();
        settled(given_back);

        let credential = Paid::buy(&shop, gate).await.credential();
        let mut hangs = L402Layer::new(gate.clone())
            .layer(service_fn(|_: Request<()>| pending::<Result<Response<String>, Infallible>>()));
        let mut left = Box::pin(hangs.call(request(Some(&credential))));
        assert!(poll_once(left.as_mut()).is_pending());
        drop(left);
        settled(given_back);
    }
}

#[tokio::test]
async fn what_admitted_uses_are_worth_is_told_where_it_is_known() {
    let told = Told::default();
    let shop = shop_with(
        &told,
        MemoryLedger::new(),
        |wallet| Arc::new(wallet),
        |builder| builder.with_rates(HOUR, |_: Currency| async { Ok(ExchangeRate::per_bitcoin(5_000_000)?) }),
    );
    let priced = |access| Offer::priced(|_| Ok(Price::msat(1_001_000)), access);
    let cents = Price::minor(21, Currency::new("EUR"));
    for (name, offer, units, worth) in [
        ("once", Offer::new(Price::sat(21), Access::once()), 1, Some(21_000)),
        ("hundred", Offer::new(Price::sat(21), Access::uses(100)), 1, Some(210)),
        ("rounded", Offer::new(Price::msat(1_000), Access::uses(3)), 1, Some(333)),
        ("balance", Offer::new(Price::sat(1_000), Access::balance(1_000)), 25, Some(25_000)),
        ("priced", priced(Access::once()), 1, Some(1_001_000)),
        ("priced-three", priced(Access::uses(3)), 1, Some(333_666)),
        ("euro", Offer::new(cents, Access::once()), 1, None),
        ("nothing", Offer::new(Price::sat(21), Access::uses(100)), 0, None),
        ("pass", Offer::new(Price::sat(21), Access::pass(DAY)), 1, None),
        ("priced-pass", priced(Access::pass(DAY)), 1, None),
    ] {
        let gate = Gate::builder(&shop.issuer, name, offer).with_cost(units).build().unwrap();
        let paid = Paid::buy(&shop, &gate).await;
        told.take();
        call(&mut ok().behind(&gate), request(Some(&paid.credential()))).await.unwrap();
        let lines = told.take();
        let admission = lines.iter().find(|line| line.starts_with("admission")).unwrap();
        assert!(admission.ends_with(&format!(" {worth:?}")), "{admission}");

        // What a holder adds has no say in it.
        let paid = Paid::buy(&shop, &gate).await;
        let boast = paid.with_caveat(&format!("{name}_max_price=18446744073709551615msat"));
        told.take();
        call(&mut ok().behind(&gate), request(Some(&boast.credential()))).await.unwrap();
        for admission in told.take().iter().filter(|line| line.starts_with("admission")) {
            assert!(admission.ends_with(&format!(" {worth:?}")), "{admission}");
        }
    }
}

#[tokio::test]
async fn what_is_free_is_an_admission_that_took_nothing() {
    let told = Told::default();
    let shop = shop(&told);
    let offer = Offer::priced(|_| Ok(Price::Free), Access::once());
    let gate = Gate::builder(&shop.issuer, "svc", offer)
        .free_if(|head| head.method == http::Method::HEAD)
        .build()
        .unwrap();
    call(&mut ok().behind(&gate), request(None)).await.unwrap();
    let mut head = request(None);
    *head.method_mut() = http::Method::HEAD;
    call(&mut ok().behind(&gate), head).await.unwrap();
    assert_eq!(
        told.take(),
        ["admission svc - free_price 0 None None", "admission svc - free_if 0 None None"]
    );
}

/// The outer gate takes the use; each tells of the request.
#[tokio::test]
async fn gates_within_one_another_tell_of_one_use() {
    let told = Told::default();
    let shop = shop(&told);
    let builder = Gate::builder(&shop.issuer, "svc", Offer::new(Price::sat(3), Access::uses(3)));
    let (outer, within) = (builder.clone().build().unwrap(), builder.build().unwrap());
    let credential = Paid::buy(&shop, &outer).await.credential();
    told.take();
    let mut service = L402Layer::new(outer).layer(ok().behind(&within));
    call(&mut service, request(Some(&credential))).await.unwrap();
    assert_eq!(
        told.take_decisions(),
        [
            "admission svc default preimage 1 Some(2) Some(1000)",
            "admission svc default preimage 0 Some(2) None",
            "settlement svc 1 charged"
        ]
    );
}

#[tokio::test]
async fn a_pass_above_its_rate_hits_a_limit() {
    let told = Told::default();
    let shop = shop(&told);
    let gate = shop.gate("svc", Access::pass(DAY).rate(1, MINUTE));
    let credential = Paid::buy(&shop, &gate).await.credential();
    call(&mut ok().behind(&gate), request(Some(&credential))).await.unwrap();
    told.take();
    let response = call(&mut ok().behind(&gate), request(Some(&credential))).await.unwrap();
    assert_eq!(outcome(&response), (429, Some("rate_limited")));
    assert_eq!(told.take(), ["limit svc pass_rate", "refusal svc rate_limited"]);
}

#[tokio::test]
async fn too_many_challenges_hit_a_limit() {
    let told = Told::default();
    let shop = shop_with(
        &told,
        MemoryLedger::new(),
        |wallet| Arc::new(wallet),
        |builder| builder.with_server_challenges(1, MINUTE),
    );
    let mut service = ok().behind(&metered(&shop));
    call(&mut service, request(None)).await.unwrap();
    told.take();
    let response = call(&mut service, request(None)).await.unwrap();
    assert_eq!(outcome(&response), (429, Some("too_many_challenges")));
    assert_eq!(told.take(), ["limit svc challenges", "refusal svc too_many_challenges"]);
}

#[tokio::test]
async fn a_challenge_that_is_handed_out_again_says_so() {
    let told = Told::default();
    let shop = shop_with(
        &told,
        MemoryLedger::new(),
        |wallet| Arc::new(wallet),
        |builder| builder.reuse_challenge(|_| Some(ClientId::new("one"))),
    );
    let mut service = ok().behind(&metered(&shop));
    for end in ["", " again", " again"] {
        call(&mut service, request(None)).await.unwrap();
        let lines = told.take_decisions();
        assert_eq!(lines, ["refusal svc missing_credential", &format!("challenge svc default 21000{end}")]);
    }
}

/// Each challenge has two made; what is ready is gone with its gate.
#[tokio::test]
async fn the_level_of_a_pool_is_told_whenever_it_changes() {
    let told = Told::default();
    let shop = shop(&told);
    let offer = Offer::new(Price::sat(21), Access::uses(3));
    let gate = Gate::builder(&shop.issuer, "svc", offer).with_invoice_pool(3).build().unwrap();
    let mut levels = Vec::new();
    for _ in 0..3 {
        call(&mut ok().behind(&gate), request(None)).await.unwrap();
        settle_tasks().await;
        levels.extend(
            told.take()
                .into_iter()
                .filter_map(|line| Some(line.strip_prefix("pool svc default ")?.to_owned())),
        );
    }
    assert_eq!(levels, ["1 +1", "2 +1", "1 -1", "2 +1", "3 +1", "2 -1", "3 +1"]);
    drop(gate);
    assert_eq!(told.take(), ["pool svc default 0 -3"]);
}

#[tokio::test(start_paused = true)]
async fn every_ledger_operation_is_told_with_its_time_and_how_it_ended() {
    for (fault, told_of) in [
        (Fault::Error, "ledger reserve error 0"),
        (Fault::Panic, "ledger reserve given_up 0"),
        (Fault::LatePanic, "ledger reserve given_up 0"),
        (Fault::Slow, "ledger reserve ok 10"),
        (Fault::Hang, "ledger reserve given_up 600"),
    ] {
        let (told, ledger) = (Told::default(), FaultyLedger::new());
        let shop = shop_with(&told, ledger.clone(), |wallet| Arc::new(wallet), |builder| builder);
        let gate = metered(&shop);
        let credential = Paid::buy(&shop, &gate).await.credential();
        told.take();
        ledger.set(Op::Reserve, Some(fault));
        let response = call(&mut ok().behind(&gate), request(Some(&credential))).await.unwrap();
        assert_eq!(outcome(&response), (503, Some("ledger_unavailable")), "{fault:?}");
        tokio::time::sleep(2 * l402::ledger::LEASE).await;
        let lines = told.take();
        assert!(lines.iter().any(|line| line == told_of), "{fault:?}: {lines:?}");
        assert!(lines.iter().any(|line| line == "refusal svc ledger_unavailable because"), "{lines:?}");
        assert!(!lines.iter().any(|line| line.starts_with("settlement")), "nothing was admitted: {lines:?}");
    }
}

/// Nobody waits for it, and no answer tells of it.
#[tokio::test]
async fn a_commit_that_fails_is_told() {
    let (told, ledger) = (Told::default(), FaultyLedger::new());
    let shop = shop_with(&told, ledger.clone(), |wallet| Arc::new(wallet), |builder| builder);
    let gate = metered(&shop);
    let credential = Paid::buy(&shop, &gate).await.credential();
    ledger.set(Op::Commit, Some(Fault::LateError));
    assert_eq!(call(&mut ok().behind(&gate), request(Some(&credential))).await.unwrap().status(), 200);
    settle_tasks().await;
    assert!(told.take().contains(&"ledger commit error 0".to_owned()));
}

/// A backend that does what it is told.
#[derive(Debug)]
struct Moody(DevBackend, Mood);

#[derive(Clone, Copy, Debug)]
enum Mood {
    Fails(BackendErrorKind),
    Hangs,
    Panics,
    Says(InvoiceState),
}

#[async_trait]
impl PaymentBackend for Moody {
    fn capabilities(&self) -> Capabilities {
        Capabilities::custodian(Network::Regtest).with_look_up(LookUpBy::PaymentHash)
    }

    async fn create_invoice(&self, ask: &InvoiceRequest) -> Result<Invoice, BackendError> {
        match self.1 {
            Mood::Fails(kind) => Err(BackendError::new(kind, "moody")),
            Mood::Hangs => pending().await,
            Mood::Panics => panic!("moody"),
            Mood::Says(_) => self.0.create_invoice(ask).await,
        }
    }

    async fn look_up(&self, _: PaymentHash, _: Option<&str>) -> Result<InvoiceState, BackendError> {
        match self.1 {
            Mood::Says(state) => Ok(state),
            _ => Err(BackendError::connect("moody")),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn every_call_of_the_backend_is_told_with_its_time_and_how_it_ended() {
    use BackendErrorKind as Kind;
    for (mood, told_of) in [
        (Mood::Fails(Kind::Connect), "connect 0"),
        (Mood::Fails(Kind::Timeout), "timeout 0"),
        (Mood::Fails(Kind::Auth), "auth 0"),
        (Mood::Fails(Kind::RateLimited { retry_after: None }), "rate_limited 0"),
        (Mood::Fails(Kind::Rejected), "rejected 0"),
        (Mood::Fails(Kind::InvalidResponse), "invalid_response 0"),
        (Mood::Fails(Kind::Backend), "backend 0"),
        (Mood::Hangs, "given_up 10"),
        (Mood::Panics, "given_up 0"),
    ] {
        let told = Told::default();
        let shop =
            shop_with(&told, MemoryLedger::new(), |wallet| Arc::new(Moody(wallet, mood)), |builder| builder);
        let response = call(&mut ok().behind(&metered(&shop)), request(None)).await.unwrap();
        assert_eq!(outcome(&response), (503, Some("backend_unavailable")), "{mood:?}");
        let expected =
            [format!("backend create_invoice {told_of}"), "refusal svc backend_unavailable because".into()];
        assert_eq!(told.take(), expected, "{mood:?}");
    }
}

#[tokio::test]
async fn a_look_up_is_told_with_what_the_backend_said() {
    for (state, admitted) in [
        (InvoiceState::Settled, true),
        (InvoiceState::Open, false),
        (InvoiceState::Closed, false),
        (InvoiceState::Unknown, false),
    ] {
        let told = Told::default();
        let mood = |wallet| -> Arc<dyn PaymentBackend> { Arc::new(Moody(wallet, Mood::Says(state))) };
        let shop = shop_with(&told, MemoryLedger::new(), mood, |builder| builder);
        let gate = metered(&shop);
        let credential = Paid::buy(&shop, &gate).await.credential();
        told.take();
        let response = call(&mut ok().behind(&gate), request(Some(&credential))).await.unwrap();
        assert_eq!(response.status() == 200, admitted, "{state:?}");
        let lines = told.take();
        assert_eq!(lines[..2], ["backend look_up ok 0".to_owned(), format!("look-up {state:?}")]);
    }
}

/// The same requests against a gate with a hook that always panics and one
/// without a hook: the same answers, and the same counts.
#[tokio::test]
async fn a_panic_of_the_hook_changes_nothing() {
    async fn run(shop: &Shop) -> Vec<String> {
        let mut seen = Vec::new();
        let gate = metered(shop);
        let fails = inner(|request: &Request<()>| {
            let left = request.extensions().get::<Grant>().unwrap().remaining();
            let status = if left == Some(2) { 500 } else { 200 };
            Response::builder().status(status).body(String::new()).unwrap()
        });
        let mut service = fails.behind(&gate);
        let paid = shop.pay(&call(&mut service, request(None)).await.unwrap());
        for credential in [paid.credential(), HeaderValue::from_static("L402 x"), paid.credential()] {
            let response = call(&mut service, request(Some(&credential))).await.unwrap();
            seen.push(format!("{:?} {:?}", outcome(&response), shop.used(paid.hash()).await));
        }
        // The hook is called while this panic unwinds.
        let mut panics = L402Layer::new(gate).layer(service_fn(
            |_: Request<()>| -> std::future::Ready<Result<Response<String>, Infallible>> {
                panic!("a handler panics")
            },
        ));
        let future = call(&mut panics, request(Some(&paid.credential())));
        let mut future = Box::pin(future);
        let ended = std::future::poll_fn(|cx| {
            Poll::Ready(std::panic::catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx).is_ready())))
        });
        seen.push(format!("{:?} {}", ended.await.is_err(), shop.used(paid.hash()).await));
        assert_eq!(shop.open().await, 0);
        seen
    }

    let calm = run(&Shop::new()).await;
    let told = Told::default();
    let write = told.hook();
    let hooked = shop_with(
        &told,
        MemoryLedger::new(),
        |wallet| Arc::new(wallet),
        |builder| {
            builder.on_event(move |event| {
                write(event);
                panic!("the hook panics")
            })
        },
    );
    assert_eq!(run(&hooked).await, calm);
    assert!(told.take().len() > 10, "the hook was called");
}

#[tokio::test]
async fn a_client_that_leaves_while_an_invoice_is_made_is_no_refusal() {
    let told = Told::default();
    let shop = shop_with(
        &told,
        MemoryLedger::new(),
        |wallet| Arc::new(Moody(wallet, Mood::Hangs)),
        |builder| builder,
    );
    let mut service = ok().behind(&metered(&shop));
    let mut left = Box::pin(service.call(request(None)));
    assert!(poll_once(left.as_mut()).is_pending());
    drop(left);
    assert_eq!(told.take(), ["backend create_invoice given_up 0"]);
}
