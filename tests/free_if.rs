//! What a gate lets pass free.

#![allow(missing_docs)]

#[path = "support/svc.rs"]
mod svc;

use http::header::AUTHORIZATION;
use http::{HeaderValue, Request, Response};
use l402::{Access, Basis, DAY, Gate, Grant, L402Layer, Offer, Price, PriceError};
use svc::{Paid, Shop, call, header, inner, ok, outcome, request};
use tower::Layer;

/// A gate that lets `/health` pass.
fn gate(shop: &Shop, service: &str) -> Gate {
    Gate::builder(&shop.issuer, service, Offer::new(Price::sat(21), Access::uses(5)))
        .free_if(|head| head.uri.path() == "/health")
        .build()
        .unwrap()
}

fn at(path: &str, credential: Option<&HeaderValue>) -> Request<()> {
    let mut request = request(credential);
    *request.uri_mut() = path.parse().unwrap();
    request
}

/// Answers with the basis of the grant and the Authorization lines it sees.
fn told(request: &Request<()>) -> Response<String> {
    let basis = request.extensions().get::<Grant>().unwrap().basis();
    let seen = request.headers().get_all(AUTHORIZATION).iter().count();
    Response::builder()
        .header("x-basis", format!("{basis:?}"))
        .header("x-seen", seen)
        .body(String::new())
        .unwrap()
}

#[tokio::test]
async fn what_the_closure_names_is_free_and_the_rest_is_not() {
    let shop = Shop::new();
    let inner = inner(told);
    let mut service = inner.behind(&gate(&shop, "api"));
    let response = call(&mut service, at("/health", None)).await.unwrap();
    assert_eq!(outcome(&response), (200, None));
    assert_eq!(header(&response, "x-basis"), Some("FreeIf"));
    for path in ["/", "/health/", "//health", "/Health", "/%68ealth", "/api?/health"] {
        let response = call(&mut service, at(path, None)).await.unwrap();
        assert_eq!(outcome(&response), (402, Some("missing_credential")), "{path}");
    }
    assert_eq!(inner.calls(), 1);
}

#[tokio::test]
async fn what_is_free_is_not_paid_for() {
    let shop = Shop::new();
    let gate = gate(&shop, "api");
    let admission = gate.admit(&mut at("/health", None).into_parts().0).await.unwrap();
    assert_eq!(admission.grant().basis(), Basis::FreeIf);
    assert!(!admission.grant().is_paid());
    assert_eq!(admission.grant().payment_hash(), None);
}

/// A health check that carries a credential, as a client does that sends it
/// with every call, whatever state the credential is in.
#[tokio::test]
async fn a_credential_on_a_free_request_is_taken_out_and_costs_nothing() {
    let shop = Shop::new();
    let gate = gate(&shop, "api");
    let paid = Paid::buy(&shop, &gate).await;
    let expired = paid.with_caveat("api_valid_until=1");
    let inner = inner(told);
    let mut service = inner.behind(&gate);
    let unread = HeaderValue::from_static("L402 x:y");
    for credential in [paid.credential(), expired.credential(), unread] {
        let response = call(&mut service, at("/health", Some(&credential))).await.unwrap();
        assert_eq!(outcome(&response), (200, None));
        assert_eq!(header(&response, "x-basis"), Some("FreeIf"));
        assert_eq!(header(&response, "x-seen"), Some("0"));
        assert_eq!(header(&response, "ratelimit"), None);
    }
    assert_eq!((shop.used(paid.hash()).await, shop.open().await), (0, 0));
}

#[tokio::test]
async fn other_schemes_reach_the_closure_and_ours_does_not() {
    let shop = Shop::new();
    let offer = Offer::new(Price::sat(21), Access::pass(DAY));
    let gate = Gate::builder(&shop.issuer, "api", offer)
        .free_if(|head| {
            let lines: Vec<_> = head.headers.get_all(AUTHORIZATION).iter().collect();
            lines == ["Bearer subscriber"]
        })
        .build()
        .unwrap();
    let credential = gate.test_credential();
    let inner = inner(told);
    let mut service = inner.behind(&gate);
    let mut subscriber = request(Some(&credential));
    subscriber.headers_mut().append(AUTHORIZATION, HeaderValue::from_static("Bearer subscriber"));
    let response = call(&mut service, subscriber).await.unwrap();
    assert_eq!((header(&response, "x-basis"), header(&response, "x-seen")), (Some("FreeIf"), Some("1")));
    let response = call(&mut service, request(Some(&credential))).await.unwrap();
    assert_eq!(header(&response, "x-basis"), Some("Preimage"));
}

#[tokio::test]
async fn a_credential_that_cannot_be_taken_out_is_refused_also_where_it_is_free() {
    let shop = Shop::new();
    let gate = gate(&shop, "api");
    let inner = ok();
    let mut service = inner.behind(&gate);
    let mut two = at("/health", Some(&gate.test_credential()));
    two.headers_mut().append(AUTHORIZATION, gate.test_credential());
    let response = call(&mut service, two).await.unwrap();
    assert_eq!(outcome(&response), (401, Some("two_credentials")));
    assert_eq!(inner.calls(), 0);
}

#[tokio::test]
async fn where_the_closure_panics_nothing_is_free() {
    let shop = Shop::new();
    let offer = Offer::new(Price::sat(21), Access::uses(5));
    let gate =
        Gate::builder(&shop.issuer, "api", offer).free_if(|_| panic!("as the test wants")).build().unwrap();
    let inner = inner(told);
    let mut service = inner.behind(&gate);
    let refused = call(&mut service, at("/", None)).await.unwrap();
    assert_eq!((outcome(&refused), inner.calls()), ((402, Some("missing_credential")), 0));
    let paid = shop.pay(&refused);
    let response = call(&mut service, at("/", Some(&paid.credential()))).await.unwrap();
    assert_eq!(header(&response, "x-basis"), Some("Preimage"));
}

#[tokio::test]
async fn what_is_free_asks_no_price() {
    let shop = Shop::new();
    let offer = Offer::priced(|_| Err(PriceError::unavailable("down")), Access::once());
    let gate = Gate::builder(&shop.issuer, "api", offer).free_if(|head| head.uri.path() == "/health");
    let mut service = ok().behind(&gate.build().unwrap());
    let response = call(&mut service, at("/health", None)).await.unwrap();
    assert_eq!(outcome(&response), (200, None));
    let response = call(&mut service, at("/", None)).await.unwrap();
    assert_eq!(outcome(&response), (503, Some("price_unavailable")));
}

/// Who asks next may have to pay for the same.
#[tokio::test]
async fn a_free_response_is_kept_out_of_shared_caches() {
    let shop = Shop::new();
    let inner = inner(|_| {
        let response = Response::builder().header("cache-control", "public, max-age=60");
        response.header("cdn-cache-control", "max-age=60").body(String::new()).unwrap()
    });
    let mut service = inner.behind(&gate(&shop, "api"));
    let response = call(&mut service, at("/health", None)).await.unwrap();
    assert_eq!(header(&response, "cache-control"), Some("private, max-age=60"));
    assert_eq!(header(&response, "cdn-cache-control"), None);
    assert_eq!(header(&response, "vary"), Some("Authorization"));
}

#[tokio::test]
async fn a_gate_behind_a_free_one_takes_its_payment() {
    let shop = Shop::new();
    let (outer, paid_gate) = (gate(&shop, "outer"), shop.gate("inner", Access::uses(2)));
    let paid = Paid::buy(&shop, &paid_gate).await;
    let inner = ok();
    let mut service = L402Layer::new(outer).layer(inner.behind(&paid_gate));
    let response = call(&mut service, at("/health", None)).await.unwrap();
    assert_eq!(outcome(&response), (402, Some("missing_credential")));
    let response = call(&mut service, at("/health", Some(&paid.credential()))).await.unwrap();
    assert_eq!(outcome(&response), (200, None));
    assert_eq!((inner.calls(), shop.used(paid.hash()).await), (1, 1));
}

/// The innermost gate is of the outermost one's service: what was taken for
/// that one is not taken again, through a free gate between the two.
#[tokio::test]
async fn a_free_gate_within_a_paid_one_takes_nothing() {
    let shop = Shop::new();
    let api = Gate::builder(&shop.issuer, "api", Offer::new(Price::sat(5), Access::uses(10)));
    let (outer, innermost) = (api.clone().build().unwrap(), api.build().unwrap());
    let paid = Paid::buy(&shop, &outer).await;
    let inner = ok();
    let middle = L402Layer::new(gate(&shop, "middle"));
    let mut service = L402Layer::new(outer).layer(middle.layer(inner.behind(&innermost)));
    let response = call(&mut service, at("/health", Some(&paid.credential()))).await.unwrap();
    assert_eq!(outcome(&response), (200, None));
    assert_eq!((inner.calls(), shop.used(paid.hash()).await), (1, 1));
    let response = call(&mut service, at("/", Some(&paid.credential()))).await.unwrap();
    assert_eq!(outcome(&response), (500, Some("nested_gate")));
    assert_eq!((inner.calls(), shop.used(paid.hash()).await), (1, 1));
}
