//! A gate behind a gate: one payment and one debit, or a 500.

#![allow(missing_docs)]

#[path = "support/svc.rs"]
mod svc;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::{HeaderValue, Request, Response};
use l402::{Access, Basis, DAY, Gate, Grant, L402Layer, Offer, Price};
use svc::{Paid, Shop, call, code, header, inner, ok, outcome, request, status};
use tower::Layer;

/// A read gate and a write gate of one service with counted uses.
fn read_and_write(shop: &Shop) -> (Gate, Gate) {
    let offer = Offer::new(Price::sat(5), Access::uses(10)).with_capabilities(&["read", "write"]);
    let api = Gate::builder(&shop.issuer, "api", offer);
    (
        api.clone().require_capability("read").build().unwrap(),
        api.require_capability("write").build().unwrap(),
    )
}

#[tokio::test]
async fn two_gates_of_one_service_take_one_use() {
    let shop = Shop::new();
    let (read, write) = read_and_write(&shop);
    let paid = Paid::buy(&shop, &read).await;
    let inner = ok();
    let mut service = L402Layer::new(read).layer(inner.behind(&write));
    for left in [9, 8, 7] {
        let response = call(&mut service, request(Some(&paid.credential()))).await.unwrap();
        assert_eq!(outcome(&response), (200, None));
        assert_eq!(shop.used(paid.hash()).await, 10 - left);
        assert_eq!(header(&response, "ratelimit").unwrap(), format!(r#""api";r={left};t=2592300"#));
        assert_eq!(response.headers().get_all("vary").iter().count(), 1);
    }
    assert_eq!((inner.calls(), shop.open().await), (3, 0));
}

#[tokio::test]
async fn the_handler_behind_two_gates_sees_what_is_left() {
    let shop = Shop::new();
    let (read, write) = read_and_write(&shop);
    let credential = read.test_credential();
    let sees = inner(|request: &Request<()>| {
        let grant = request.extensions().get::<Grant>().unwrap();
        Response::new(format!("{:?} {:?}", grant.remaining(), grant.basis()))
    });
    let mut service = L402Layer::new(read).layer(sees.behind(&write));
    let response = call(&mut service, request(Some(&credential))).await.unwrap();
    assert_eq!(body(response).await, "Some(9) Preimage");
}

async fn body(
    response: Response<impl http_body::Body<Data = bytes::Bytes, Error = std::convert::Infallible>>,
) -> String {
    let mut body = std::pin::pin!(response.into_body());
    let mut text = Vec::new();
    while let Some(frame) = std::future::poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
        text.extend_from_slice(&frame.unwrap().into_data().unwrap());
    }
    String::from_utf8(text).unwrap()
}

#[tokio::test]
async fn three_gates_take_one_use() {
    let shop = Shop::new();
    let (read, write) = read_and_write(&shop);
    let paid = Paid::buy(&shop, &read).await;
    let inner = ok();
    let mut service = L402Layer::new(read.clone()).layer(L402Layer::new(write).layer(inner.behind(&read)));
    let response = call(&mut service, request(Some(&paid.credential()))).await.unwrap();
    assert_eq!(outcome(&response), (200, None));
    assert_eq!((inner.calls(), shop.used(paid.hash()).await), (1, 1));
}

#[tokio::test]
async fn the_failure_of_a_handler_behind_two_gates_gives_one_use_back() {
    let shop = Shop::new();
    let (read, write) = read_and_write(&shop);
    let paid = Paid::buy(&shop, &read).await;
    let mut service = L402Layer::new(read).layer(status(503).behind(&write));
    let response = call(&mut service, request(Some(&paid.credential()))).await.unwrap();
    assert_eq!(outcome(&response), (503, None));
    assert_eq!((shop.used(paid.hash()).await, shop.open().await), (0, 0));
}

#[tokio::test]
async fn a_bundle_opens_an_inner_service_for_one_use() {
    let shop = Shop::new();
    let bundle = Offer::new(Price::sat(5), Access::uses(10)).also_opens(&["archive"]);
    let news = Gate::new(&shop.issuer, "news", bundle).unwrap();
    for archive_access in [Access::uses(3), Access::pass(DAY)] {
        let archive = shop.gate("archive", archive_access);
        let paid = Paid::buy(&shop, &news).await;
        let inner = ok();
        let mut service = L402Layer::new(news.clone()).layer(inner.behind(&archive));
        let response = call(&mut service, request(Some(&paid.credential()))).await.unwrap();
        assert_eq!(outcome(&response), (200, None));
        assert_eq!((inner.calls(), shop.used(paid.hash()).await), (1, 1));
        assert!(header(&response, "ratelimit").unwrap().starts_with(r#""news";r=9"#));

        let response = call(&mut inner.behind(&archive), request(Some(&paid.credential()))).await.unwrap();
        assert_eq!(outcome(&response), (200, None), "from the same count");
        assert_eq!(shop.used(paid.hash()).await, 2);
    }
}

#[tokio::test]
async fn the_last_use_opens_both_gates() {
    let shop = Shop::new();
    let bundle = Offer::new(Price::sat(5), Access::once()).also_opens(&["archive"]);
    let news = Gate::new(&shop.issuer, "news", bundle).unwrap();
    let archive = shop.gate("archive", Access::once());
    let credential = news.test_credential();
    let mut service = L402Layer::new(news).layer(ok().behind(&archive));
    let response = call(&mut service, request(Some(&credential))).await.unwrap();
    assert_eq!(outcome(&response), (200, None));
    let response = call(&mut service, request(Some(&credential))).await.unwrap();
    assert_eq!(outcome(&response), (402, Some("used_up")), "of the outer gate");
}

#[tokio::test]
async fn an_inner_gate_that_the_token_does_not_open_is_a_500_and_never_a_402() {
    let shop = Shop::new();
    let other_issuer = Shop::with_key([8; 32], l402::MemoryLedger::new());
    let offer = |id: &str| Offer::new(Price::sat(5), Access::uses(10)).with_id(id);
    let api = Gate::builder(&shop.issuer, "api", offer("a").with_capabilities(&["read"]));
    let outer = api.clone().build().unwrap();
    let inners = [
        ("another service", shop.gate("other", Access::uses(10))),
        ("another issuer", other_issuer.gate("api", Access::uses(10))),
        ("another offer", other_issuer.gate("api2", Access::pass(DAY))),
        ("another tier", api.clone().add_offer(offer("b").with_tier(3)).require_tier(3).build().unwrap()),
        (
            "another capability",
            api.add_offer(offer("c").with_capabilities(&["write"]))
                .require_capability("write")
                .build()
                .unwrap(),
        ),
    ];
    for (name, gate) in inners {
        let paid = Paid::buy(&shop, &outer).await;
        let inner = ok();
        let mut service = L402Layer::new(outer.clone()).layer(inner.behind(&gate));
        let response = call(&mut service, request(Some(&paid.credential()))).await.unwrap();
        assert_eq!(outcome(&response), (500, Some("nested_gate")), "{name}");
        assert_eq!(header(&response, "www-authenticate"), None, "{name}: a payment would not mend it");
        assert_eq!(inner.calls(), 0, "{name}");
        assert_eq!((shop.used(paid.hash()).await, shop.open().await), (0, 0), "{name}: given back");

        let response = call(&mut service, request(None)).await.unwrap();
        assert_eq!(outcome(&response), (402, Some("missing_credential")), "{name}: of the outer gate");
    }
}

fn free(shop: &Shop, service: &str) -> Gate {
    Gate::new(&shop.issuer, service, Offer::new(Price::Free, Access::pass(DAY))).unwrap()
}

#[tokio::test]
async fn a_paid_gate_behind_a_free_one_takes_its_payment() {
    let shop = Shop::new();
    let outer = free(&shop, "free");
    for access in [Access::uses(2), Access::pass(DAY)] {
        let gate = shop.gate(if access.max_uses().is_some() { "uses" } else { "pass" }, access);
        let inner = ok();
        let mut service = L402Layer::new(outer.clone()).layer(inner.behind(&gate));
        let refused = call(&mut service, request(None)).await.unwrap();
        assert_eq!(outcome(&refused), (402, Some("missing_credential")));
        assert_eq!(inner.calls(), 0);

        let paid = shop.pay(&refused);
        for n in 1..=2 {
            let response = call(&mut service, request(Some(&paid.credential()))).await.unwrap();
            assert_eq!(outcome(&response), (200, None));
            assert_eq!(header(&response, "cache-control"), Some("private"));
            assert_eq!(inner.calls(), n);
        }
        if access.max_uses().is_some() {
            assert_eq!(shop.used(paid.hash()).await, 2);
            let response = call(&mut service, request(Some(&paid.credential()))).await.unwrap();
            assert_eq!(outcome(&response), (402, Some("used_up")));
        }
        let broken = HeaderValue::from_static("L402 x:y");
        let response = call(&mut service, request(Some(&broken))).await.unwrap();
        assert_eq!(response.status(), 401);
    }
}

#[tokio::test]
async fn a_grant_of_nothing_does_not_open_a_paid_gate() {
    let shop = Shop::new();
    let outer = free(&shop, "free");
    let paid_gate = shop.gate("paid", Access::uses(2));
    let credential = outer.test_credential();
    let inner = ok();
    let mut service = L402Layer::new(outer).layer(inner.behind(&paid_gate));
    let response = call(&mut service, request(Some(&credential))).await.unwrap();
    assert_eq!(outcome(&response), (402, Some("wrong_service")));
    assert_eq!(inner.calls(), 0);
}

#[tokio::test]
async fn a_free_gate_behind_a_paid_one_opens_to_whoever_paid() {
    let shop = Shop::new();
    let outer = shop.gate("paid", Access::uses(5));
    let gate = free(&shop, "free");
    let paid = Paid::buy(&shop, &outer).await;
    let inner = ok();
    let mut service = L402Layer::new(outer).layer(inner.behind(&gate));
    let response = call(&mut service, request(Some(&paid.credential()))).await.unwrap();
    assert_eq!(outcome(&response), (200, None));
    assert_eq!((inner.calls(), shop.used(paid.hash()).await), (1, 1));
    assert_eq!(header(&response, "cache-control"), Some("private"));
}

#[tokio::test]
async fn a_gate_without_price_between_two_paid_ones_takes_no_second_use() {
    let shop = Shop::new();
    let offer = Offer::new(Price::sat(5), Access::uses(10)).also_opens(&["middle"]);
    let api = Gate::builder(&shop.issuer, "api", offer);
    let (outer, innermost) = (api.clone().build().unwrap(), api.build().unwrap());
    for middle in [free(&shop, "middle"), free(&shop, "unrelated")] {
        let paid = Paid::buy(&shop, &outer).await;
        let inner = ok();
        let mut service =
            L402Layer::new(outer.clone()).layer(L402Layer::new(middle).layer(inner.behind(&innermost)));
        let response = call(&mut service, request(Some(&paid.credential()))).await.unwrap();
        assert_eq!(outcome(&response), (200, None));
        assert_eq!((inner.calls(), shop.used(paid.hash()).await), (1, 1));
    }
}

#[tokio::test]
async fn an_inner_gate_whose_price_is_nothing_for_this_request_takes_nothing() {
    let shop = Shop::new();
    let costs = Arc::new(AtomicBool::new(false));
    let outer = free(&shop, "free");
    let priced = Offer::priced(
        {
            let costs = costs.clone();
            move |_| Ok(if costs.load(Ordering::SeqCst) { Price::sat(5) } else { Price::Free })
        },
        Access::uses(2),
    );
    let gate = Gate::new(&shop.issuer, "svc", priced).unwrap();
    costs.store(true, Ordering::SeqCst);
    let paid = Paid::buy(&shop, &gate).await;
    let sees = inner(|request: &Request<()>| {
        let basis = request.extensions().get::<Grant>().unwrap().basis();
        Response::builder().header("basis", format!("{basis:?}")).body(String::new()).unwrap()
    });
    let mut service = L402Layer::new(outer).layer(sees.behind(&gate));
    for (cost, credential, expected, basis) in [
        (false, None, 200, Some(Basis::FreePrice)),
        (false, Some(paid.credential()), 200, Some(Basis::FreePrice)),
        (true, None, 402, None),
        (true, Some(paid.credential()), 200, Some(Basis::Preimage)),
    ] {
        costs.store(cost, Ordering::SeqCst);
        let response = call(&mut service, request(credential.as_ref())).await.unwrap();
        assert_eq!(response.status(), expected, "{:?}", code(&response));
        assert_eq!(header(&response, "basis"), basis.map(|basis| format!("{basis:?}")).as_deref());
    }
    assert_eq!(shop.used(paid.hash()).await, 1);
}

#[tokio::test]
async fn the_grant_of_another_request_is_judged_by_its_own_token() {
    // What a handler passes on to a service behind it: the grant, as it is.
    let shop = Shop::new();
    let gate = shop.gate("svc", Access::pass(DAY));
    let credential = gate.test_credential();
    let admission = gate.admit(&mut request(Some(&credential)).into_parts().0).await.unwrap();
    let mut passed_on = request(None);
    passed_on.extensions_mut().insert(admission.grant().clone());
    let response = call(&mut ok().behind(&gate), passed_on).await.unwrap();
    assert_eq!(outcome(&response), (200, None));

    let mut too_late = request(None);
    too_late.extensions_mut().insert(admission.grant().clone());
    shop.clock.advance(2 * DAY);
    let response = call(&mut ok().behind(&gate), too_late).await.unwrap();
    assert_eq!(outcome(&response), (500, Some("nested_gate")));
}

#[tokio::test]
async fn a_grant_made_for_a_test_opens_no_gate() {
    let shop = Shop::new();
    let gate = shop.gate("test", Access::pass(DAY));
    let mut forged = request(None);
    forged.extensions_mut().insert(Grant::test().build());
    let inner = ok();
    let response = call(&mut inner.behind(&gate), forged).await.unwrap();
    assert_eq!(outcome(&response), (500, Some("nested_gate")));
    assert_eq!(inner.calls(), 0);
}
