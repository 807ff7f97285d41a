//! A gate in dry run admits what it would refuse, tells of it, and sells nothing.

#![allow(missing_docs)]

#[path = "support/faults.rs"]
mod faults;
#[path = "support/svc.rs"]
mod svc;
#[path = "support/watch.rs"]
mod watch;

use std::sync::Arc;

use faults::{Fault, FaultyLedger, Op};
use http::header::AUTHORIZATION;
use http::{HeaderValue, Request, Response, StatusCode};
use l402::{
    Access, Basis, DAY, Gate, GateBuilder, Grant, HOUR, MINUTE, MemoryLedger, Offer, Price, PriceError,
};
use svc::{Paid, Shop, call, header, inner, outcome, request};
use tower::Layer;
use watch::{Told, shop, shop_with};

fn builder(shop: &Shop, service: &str, access: Access) -> GateBuilder {
    Gate::builder(&shop.issuer, service, Offer::new(Price::sat(21), access))
}

fn dry(shop: &Shop, service: &str, access: Access) -> Gate {
    builder(shop, service, access).dangerous_dry_run().build().unwrap()
}

/// Answers with the basis of the grant and how many Authorization lines it sees.
fn told_of(request: &Request<()>) -> Response<String> {
    let grant = request.extensions().get::<Grant>().unwrap();
    let seen = request.headers().get_all(AUTHORIZATION).iter().count();
    let response = Response::builder().header("x-basis", grant.basis().code()).header("x-seen", seen);
    response.header("x-paid", grant.is_paid().to_string()).body(String::new()).unwrap()
}

#[tokio::test]
async fn what_would_be_refused_is_admitted_unpaid_and_told() {
    let told = Told::default();
    let shop = shop(&told);
    let gate = dry(&shop, "svc", Access::uses(2).within(HOUR));
    // What it sells is sold by a gate of the same service that is not in dry run.
    let other = Gate::new(&shop.issuer, "other", Offer::new(Price::sat(1), Access::uses(2))).unwrap();
    let (paid, second) = (Paid::buy(&shop, &other).await, Paid::buy(&shop, &other).await);
    told.take();
    let wrong = HeaderValue::from_static("L402 x:y");
    let altered = paid.token.credential(&second.preimage);
    for (credential, code) in [
        (None, "missing_credential"),
        (Some(paid.credential()), "wrong_service"),
        (Some(altered), "wrong_preimage"),
        (Some(wrong), "malformed_preimage"),
    ] {
        let inner = inner(told_of);
        let response = call(&mut inner.behind(&gate), request(credential.as_ref())).await.unwrap();
        assert_eq!(outcome(&response), (200, None), "{code}");
        assert_eq!(inner.calls(), 1);
        for (name, value) in [
            ("x-basis", Some("dry_run")),
            ("x-paid", Some("false")),
            ("x-seen", Some("0")),
            ("cache-control", Some("private")),
            ("vary", Some("Authorization")),
            ("ratelimit", None),
            ("www-authenticate", None),
        ] {
            assert_eq!(header(&response, name), value, "{code}: {name}");
        }
        let expected = [format!("dry run svc {code}"), "admission svc - dry_run 0 None None".into()];
        assert_eq!(told.take(), expected, "no invoice, no refusal");
    }
}

#[tokio::test]
async fn what_is_paid_is_admitted_and_debited_as_ever_and_what_is_used_up_is_not_debited() {
    let told = Told::default();
    let shop = shop(&told);
    let api = builder(&shop, "svc", Access::uses(2).within(HOUR));
    let (gate, seller) = (api.clone().dangerous_dry_run().build().unwrap(), api.build().unwrap());
    let paid = Paid::buy(&shop, &seller).await;
    for (basis, used) in [("preimage", 1), ("preimage", 2), ("dry_run", 2), ("dry_run", 2)] {
        let response =
            call(&mut inner(told_of).behind(&gate), request(Some(&paid.credential()))).await.unwrap();
        assert_eq!(header(&response, "x-basis"), Some(basis));
        assert_eq!(header(&response, "ratelimit").is_some(), basis == "preimage");
        assert_eq!((shop.used(paid.hash()).await, shop.open().await), (used, 0));
    }
    assert!(told.take().contains(&"dry run svc used_up".to_owned()));
}

#[tokio::test]
async fn where_it_cannot_be_told_what_to_take_out_nothing_of_ours_goes_in() {
    let shop = Shop::new();
    let gate = dry(&shop, "svc", Access::uses(2));
    let seller = Gate::new(&shop.issuer, "other", Offer::new(Price::sat(1), Access::uses(2))).unwrap();
    let (first, second) = (Paid::buy(&shop, &seller).await, Paid::buy(&shop, &seller).await);
    let mut two = request(Some(&first.credential()));
    two.headers_mut().append(AUTHORIZATION, second.credential());
    let response = call(&mut inner(told_of).behind(&gate), two).await.unwrap();
    assert_eq!((header(&response, "x-basis"), header(&response, "x-seen")), (Some("dry_run"), Some("0")));
}

#[tokio::test]
async fn limits_prices_and_outages_are_admitted_too() {
    let (told, ledger) = (Told::default(), FaultyLedger::new());
    let shop = shop_with(&told, ledger.clone(), |wallet| Arc::new(wallet), |builder| builder);
    let served = async |gate: &Gate, credential: Option<HeaderValue>, expected: &[&str]| {
        told.take();
        let response = call(&mut inner(told_of).behind(gate), request(credential.as_ref())).await.unwrap();
        assert_eq!(header(&response, "x-basis"), Some("dry_run"), "{expected:?}");
        assert_eq!(told.take_decisions()[..expected.len()], *expected);
    };
    for (name, error, expected) in [
        ("unknown", (|| PriceError::reject(StatusCode::NOT_FOUND)) as fn() -> PriceError, "not_for_sale"),
        ("down", || PriceError::unavailable("down"), "price_unavailable because"),
        ("broken", || PriceError::failed("broken"), "price_failed because"),
    ] {
        let expected = format!("dry run {name} {expected}");
        let offer = Offer::priced(move |_| Err(error()), Access::once());
        let gate = Gate::builder(&shop.issuer, name, offer).dangerous_dry_run().build().unwrap();
        served(&gate, None, &[&expected]).await;
        let name = format!("asked-{name}");
        let offer = Offer::priced_async(move |_| async move { Err(error()) }, Access::once());
        let gate = Gate::builder(&shop.issuer, &name, offer).dangerous_dry_run().build().unwrap();
        served(&gate, None, &[&expected.replacen("run ", "run asked-", 1)]).await;
    }

    let api = builder(&shop, "rated", Access::pass(DAY).rate(1, MINUTE));
    let (gate, seller) = (api.clone().dangerous_dry_run().build().unwrap(), api.build().unwrap());
    let credential = Paid::buy(&shop, &seller).await.credential();
    call(&mut inner(told_of).behind(&gate), request(Some(&credential))).await.unwrap();
    served(&gate, Some(credential), &["limit rated pass_rate", "dry run rated rate_limited"]).await;

    let api = builder(&shop, "metered", Access::uses(5));
    let (gate, seller) = (api.clone().dangerous_dry_run().build().unwrap(), api.build().unwrap());
    let paid = Paid::buy(&shop, &seller).await;
    ledger.set(Op::Reserve, Some(Fault::ErrorAfter));
    served(&gate, Some(paid.credential()), &["dry run metered ledger_unavailable because"]).await;
    assert_eq!(ledger.used(paid.hash()).await, 0, "what was reserved is given back");
}

#[tokio::test]
async fn what_is_free_stays_free() {
    let told = Told::default();
    let shop = shop(&told);
    let offer = Offer::priced_async(|_| async { Ok(Price::Free) }, Access::once());
    let gate = Gate::builder(&shop.issuer, "svc", offer).dangerous_dry_run().build().unwrap();
    let response = call(&mut inner(told_of).behind(&gate), request(None)).await.unwrap();
    assert_eq!(header(&response, "x-basis"), Some("free_price"));
    assert_eq!(told.take(), ["admission svc - free_price 0 None None"]);
}

/// Outer gate, inner gate, credential of which of them, and what comes of it.
#[tokio::test]
async fn gates_within_one_another_are_each_in_dry_run_or_not() {
    let told = Told::default();
    let shop = shop(&told);
    let pair = |name: &str| {
        let api = builder(&shop, name, Access::uses(9));
        (api.clone().dangerous_dry_run().build().unwrap(), api.build().unwrap())
    };
    let ((dry_a, real_a), (dry_b, real_b)) = (pair("a"), pair("b"));
    let (a, b) = (Paid::buy(&shop, &real_a).await, Paid::buy(&shop, &real_b).await);
    for (outer, within, paid, seen) in [
        (&dry_a, &real_b, None, (402, Some("missing_credential"), None)),
        (&dry_a, &real_b, Some(&b), (200, None, Some("preimage"))),
        (&dry_a, &real_b, Some(&a), (500, Some("nested_gate"), None)),
        (&real_a, &dry_b, Some(&a), (200, None, Some("dry_run"))),
        (&dry_a, &dry_b, Some(&a), (200, None, Some("dry_run"))),
        (&dry_a, &dry_b, None, (200, None, Some("dry_run"))),
        (&real_a, &dry_a, Some(&a), (200, None, Some("preimage"))),
    ] {
        let before = (shop.used(a.hash()).await, shop.used(b.hash()).await);
        let mut service = l402::L402Layer::new(outer.clone()).layer(inner(told_of).behind(within));
        let credential = paid.map(Paid::credential);
        let response = call(&mut service, request(credential.as_ref())).await.unwrap();
        let (status, code) = outcome(&response);
        assert_eq!((status, code, header(&response, "x-basis")), seen, "{outer:?} {within:?}");
        let after = (shop.used(a.hash()).await, shop.used(b.hash()).await);
        let taken = u64::from(status == 200 && paid.is_some());
        assert_eq!(after.0 + after.1, before.0 + before.1 + taken, "one debit at most: {outer:?} {within:?}");
    }
}

#[tokio::test]
async fn the_grant_of_a_dry_run_is_not_paid_and_knows_no_token() {
    let told = Told::default();
    let shop = shop_with(&told, MemoryLedger::new(), |wallet| Arc::new(wallet), |builder| builder);
    let gate = dry(&shop, "svc", Access::pass(DAY));
    let admission = gate.admit(&mut request(None).into_parts().0).await.unwrap();
    let grant = admission.grant();
    assert_eq!((grant.basis(), grant.is_paid(), grant.payment_hash()), (Basis::DryRun, false, None));
    assert_eq!((grant.remaining(), grant.offer(), grant.tier()), (None, None, 0));
}
