//! Whoever asks for challenges without end gets what the operator allows, the
//! backend is not asked for more, and those who paid do not notice.

#![allow(missing_docs)]

#[path = "support/node.rs"]
mod node;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use allocation_counter::measure;
use axum::extract::ConnectInfo;
use bytes::Bytes;
use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{HeaderValue, Request, Response, StatusCode};
use l402::{
    Access, Basis, CaveatRegistry, Challenge, ClientId, DAY, DevBackend, ErrorKind, FixedClock,
    ForwardedHeader, Gate, Issuer, IssuerBuilder, KeyRing, MINUTE, MemoryLedger, Network, Offer, PaymentHash,
    PeerAddr, Price, PriceError, Refusal, Revocation, RootKey,
};
use node::{Mode, Node};

const NOW: u64 = 1_900_000_000;
const SECOND: Duration = Duration::from_secs(1);

struct Shop {
    clock: FixedClock,
    node: Node,
    issuer: Issuer,
}

impl Shop {
    fn new() -> Self {
        Self::with(|builder| builder)
    }

    fn with(configure: impl FnOnce(IssuerBuilder) -> IssuerBuilder) -> Self {
        let clock = FixedClock::at(NOW);
        let node = Node::new(DevBackend::with_clock(clock.clone()));
        let builder = Issuer::builder(keys(1), node.clone())
            .with_network(Network::Regtest)
            .with_ledger(MemoryLedger::new())
            .with_clock(clock.clone());
        Self { issuer: configure(builder).build().unwrap(), clock, node }
    }

    fn gate(&self, service: &str) -> Gate {
        Gate::new(&self.issuer, service, offer()).unwrap()
    }

    /// The credential of a challenge that was paid.
    fn pay(&self, response: &Response<Bytes>) -> HeaderValue {
        let challenge = challenge(response);
        challenge.token().credential(&self.node.wallet.pay(challenge.invoice()).unwrap())
    }
}

fn keys(key: u8) -> KeyRing {
    KeyRing::new(RootKey::new([key; 32]).unwrap())
}

fn offer() -> Offer {
    Offer::new(Price::sat(21), Access::pass(DAY))
}

fn head(lines: &[(&'static str, &str)]) -> Parts {
    let mut request = Request::get("/").body(()).unwrap();
    for (name, value) in lines {
        request.headers_mut().append(*name, value.parse().unwrap());
    }
    request.into_parts().0
}

/// A request from this address.
fn from(ip: &str) -> Parts {
    from_with(ip, &[])
}

fn from_with(ip: &str, lines: &[(&'static str, &str)]) -> Parts {
    let mut head = head(lines);
    head.extensions.insert(PeerAddr(SocketAddr::new(ip.parse().unwrap(), 4711)));
    head
}

async fn ask(gate: &Gate, mut head: Parts) -> Response<Bytes> {
    gate.admit(&mut head).await.expect_err("it was not paid")
}

fn challenge(response: &Response<Bytes>) -> Challenge {
    assert_eq!(response.status(), 402, "{:?}", code(response));
    response.headers()[WWW_AUTHENTICATE].to_str().unwrap().parse().unwrap()
}

fn hash(response: &Response<Bytes>) -> PaymentHash {
    challenge(response).token().identifier().payment_hash
}

fn code(response: &Response<Bytes>) -> &'static str {
    response.extensions().get::<Refusal>().unwrap().code()
}

/// How many of `n` such requests are answered with a challenge. All others are
/// 429.
async fn sold(gate: &Gate, head: impl Fn() -> Parts, n: usize) -> usize {
    let mut sold = 0;
    for _ in 0..n {
        let response = ask(gate, head()).await;
        match response.status().as_u16() {
            402 => sold += 1,
            429 => assert_eq!(code(&response), "too_many_challenges"),
            other => panic!("{other} {}", code(&response)),
        }
    }
    sold
}

async fn settle_tasks() {
    for _ in 0..64 {
        tokio::task::yield_now().await;
    }
}

fn tasks() -> usize {
    tokio::runtime::Handle::current().metrics().num_alive_tasks()
}

#[tokio::test]
async fn by_default_a_client_gets_60_a_minute_and_the_server_makes_100_a_second() {
    let shop = Shop::new();
    let gate = shop.gate("svc");
    assert_eq!(sold(&gate, || from("192.0.2.1"), 100).await, 60);
    assert_eq!(sold(&gate, || from("192.0.2.99"), 10).await, 0, "the same network");
    assert_eq!(shop.node.asked(), 60, "the backend hears of no other");
    assert_eq!(sold(&gate, || from("192.0.3.1"), 100).await, 40, "what the server has left");
    shop.clock.advance(SECOND);
    assert_eq!(sold(&gate, || from("192.0.2.1"), 10).await, 1);
    assert_eq!(sold(&gate, || from("192.0.3.1"), 100).await, 21, "what the server refused is not counted");
    shop.clock.advance(MINUTE);
    assert_eq!(sold(&gate, || from("192.0.2.1"), 100).await, 60);
    assert_eq!(shop.node.asked(), 182);
}

#[tokio::test]
async fn a_client_that_asks_too_often_is_turned_away_before_the_pricer() {
    let shop = Shop::with(|builder| builder.with_client_challenges(3, MINUTE));
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = asked.clone();
    let offer = Offer::priced_async(
        move |head| {
            counter.fetch_add(1, Ordering::SeqCst);
            let price = match head.headers.get("price").map(HeaderValue::as_bytes) {
                Some(b"free") => Ok(Price::Free),
                Some(_) => Err(PriceError::reject(StatusCode::NOT_FOUND)),
                None => Ok(Price::sat(21)),
            };
            async move { price }
        },
        Access::once(),
    );
    let gate = Gate::new(&shop.issuer, "docs", offer).unwrap();

    // What is free is not counted.
    for _ in 0..10 {
        let admitted = gate.admit(&mut from_with("192.0.2.1", &[("price", "free")])).await;
        assert_eq!(admitted.expect("it costs nothing").grant().basis(), Basis::FreePrice);
    }
    assert_eq!(sold(&gate, || from("192.0.2.1"), 10).await, 3);
    assert_eq!(asked.swap(0, Ordering::SeqCst), 13, "and not for those who were turned away");

    // What has no price is.
    let nothing = || from_with("192.0.3.1", &[("price", "none")]);
    for _ in 0..3 {
        assert_eq!(ask(&gate, nothing()).await.status(), 404);
    }
    assert_eq!(sold(&gate, nothing, 10).await, 0);
    assert_eq!(sold(&gate, || from("192.0.3.1"), 10).await, 0);
    assert_eq!(asked.swap(0, Ordering::SeqCst), 3);

    // Where nobody knows the client, the server's limit counts.
    shop.clock.advance(SECOND);
    assert_eq!(sold(&gate, || head(&[]), 200).await, 100);
    assert_eq!(asked.swap(0, Ordering::SeqCst), 100);
    shop.clock.advance(SECOND);
    let mut missing = 0;
    for _ in 0..200 {
        missing += usize::from(ask(&gate, head(&[("price", "none")])).await.status() == 404);
    }
    assert_eq!((missing, asked.load(Ordering::SeqCst)), (100, 100));
    assert_eq!(sold(&shop.gate("fixed"), || head(&[]), 5).await, 0, "it counts for all gates");
}

#[tokio::test]
async fn a_token_that_anybody_has_does_not_reach_the_pricer_beyond_the_limit() {
    let shop = Shop::with(|builder| builder.with_client_challenges(3, MINUTE).with_settled_tokens());
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = asked.clone();
    let price = move |_: &Parts| {
        counter.fetch_add(1, Ordering::SeqCst);
        async { Ok(Price::sat(21)) }
    };
    let gate = Gate::new(&shop.issuer, "docs", Offer::priced_async(price, Access::pass(DAY))).unwrap();
    let token = challenge(&ask(&gate, from("192.0.2.1")).await).token().to_base64();
    let mut statuses = Vec::new();
    for _ in 0..5 {
        let line = format!("L402 {token}");
        statuses
            .push(ask(&gate, from_with("192.0.2.1", &[("authorization", &line)])).await.status().as_u16());
        shop.clock.advance(6 * SECOND); // what the backend said is forgotten
    }
    assert_eq!(statuses, [503, 503, 429, 429, 503]);
    assert_eq!(asked.load(Ordering::SeqCst), 4, "one sale, and three questions");
}

#[tokio::test]
async fn a_closure_that_panics_lets_nobody_in_and_breaks_no_connection() {
    // Nobody is known: the server's limit counts.
    let shop = Shop::with(|builder| {
        builder
            .with_client(|_| panic!("as told"))
            .with_client_challenges(1, MINUTE)
            .reuse_challenge(|_| panic!("as told"))
    });
    assert_eq!(sold(&shop.gate("svc"), || from("192.0.2.1"), 5).await, 5);

    let has = |head: &Parts, what: &str| head.headers.get("x").is_some_and(|value| value == what);
    let shop = Shop::with(|builder| {
        let caveats = CaveatRegistry::new()
            .check("odd", move |check| if has(check.head(), "check") { panic!("as told") } else { true })
            .bind("tenant", move |head| if has(head, "bind") { panic!("as told") } else { None });
        builder.with_caveats(caveats)
    });
    let gate = shop.gate("svc");
    let response = ask(&gate, from("192.0.2.1")).await;
    let restricted = challenge(&response).token().attenuate("odd=1").unwrap();
    let preimage = shop.node.wallet.pay(challenge(&response).invoice()).unwrap();
    let line = restricted.credential(&preimage).to_str().unwrap().to_owned();
    let with = |x: &str| from_with("192.0.2.1", &[("authorization", &line), ("x", x)]);
    assert!(gate.admit(&mut with("")).await.is_ok());
    for (x, refused) in [("check", (402, "condition_failed")), ("bind", (500, "misconfigured"))] {
        let response = ask(&gate, with(x)).await;
        assert_eq!((response.status().as_u16(), code(&response)), refused, "{x}");
    }
    let response = ask(&gate, from_with("192.0.2.1", &[("x", "bind")])).await;
    assert_eq!((response.status().as_u16(), code(&response)), (500, "misconfigured"));
}

#[tokio::test]
async fn where_the_server_gives_no_address_its_own_limit_counts() {
    let shop = Shop::new();
    let gates = [shop.gate("a"), shop.gate("b")];
    let (mut a, mut b) = (0, 0);
    for _ in 0..100 {
        a += sold(&gates[0], || head(&[("x-forwarded-for", "192.0.2.1")]), 1).await;
        b += sold(&gates[1], || head(&[]), 1).await;
    }
    assert_eq!((a, b), (50, 50), "all gates together");
    shop.clock.advance(Duration::from_millis(20));
    assert_eq!(sold(&gates[0], || head(&[]), 10).await, 2);
}

#[tokio::test]
async fn a_limit_is_429_with_retry_after_and_no_invoice() {
    let shop = Shop::with(|builder| builder.with_client_challenges(2, MINUTE));
    let gate = shop.gate("svc");
    assert_eq!(sold(&gate, || from("192.0.2.1"), 2).await, 2);
    let response = ask(&gate, from("192.0.2.1")).await;
    assert_eq!(response.status(), 429);
    assert_eq!(response.headers()["retry-after"], "30");
    assert_eq!(response.headers()["cache-control"], "no-store");
    assert!(!response.headers().contains_key(WWW_AUTHENTICATE));
    assert!(!String::from_utf8_lossy(response.body()).contains("lnbc"));
    let refusal = response.extensions().get::<Refusal>().unwrap();
    assert_eq!(*refusal, Refusal::TooManyChallenges { retry_after: 30 * SECOND });

    let mut grpc = from_with("192.0.2.1", &[("content-type", "application/grpc")]);
    grpc.method = http::Method::POST;
    let response = ask(&gate, grpc).await;
    assert_eq!(
        (response.status().as_u16(), &response.headers()["grpc-status"]),
        (200, &"8".parse().unwrap())
    );
    assert_eq!(response.headers()["retry-after"], "30");

    // Who waits that long is served.
    shop.clock.advance(30 * SECOND);
    assert_eq!(sold(&gate, || from("192.0.2.1"), 5).await, 1);
}

#[tokio::test]
async fn a_client_at_its_limit_still_uses_what_it_paid_for() {
    let shop = Shop::with(|builder| builder.with_client_challenges(1, MINUTE));
    let gate = shop.gate("svc");
    let credential = shop.pay(&ask(&gate, from("192.0.2.1")).await);
    assert_eq!(sold(&gate, || from("192.0.2.1"), 50).await, 0);
    for _ in 0..200 {
        let mut head = from("192.0.2.1");
        head.headers.insert(AUTHORIZATION, credential.clone());
        assert!(gate.admit(&mut head).await.unwrap().grant().is_paid());
    }
}

#[tokio::test]
async fn a_limit_costs_no_more_than_its_answer() {
    let shop = Shop::with(|builder| builder.with_client_challenges(1, DAY));
    let gate = shop.gate("svc");
    let now = |head: &mut Parts| {
        let future = std::pin::pin!(gate.admit(head));
        match future.poll(&mut std::task::Context::from_waker(std::task::Waker::noop())) {
            std::task::Poll::Ready(response) => response.unwrap_err(),
            std::task::Poll::Pending => panic!("it waits"),
        }
    };
    assert_eq!(sold(&gate, || from("192.0.2.1"), 3).await, 1);
    let allocations = |mut head: Parts, status: u16| {
        let mut response = None;
        let counts = measure(|| response = Some(now(&mut head)));
        assert_eq!(response.unwrap().status(), status);
        counts.count_total
    };
    let broken = || head(&[("authorization", "L402 x:y")]);
    allocations(broken(), 401);
    let (limited, broken) = (allocations(from("192.0.2.1"), 429), allocations(broken(), 401));
    assert!(limited <= broken + 4, "{limited}, and {broken} for a broken credential");
    assert_eq!(shop.node.asked(), 1);
}

#[tokio::test]
async fn the_peer_is_known_by_axums_connect_info() {
    let shop = Shop::with(|builder| builder.with_client_challenges(2, MINUTE));
    let gate = shop.gate("svc");
    let request = |ip: &str| {
        let mut head = head(&[]);
        head.extensions.insert(ConnectInfo(SocketAddr::new(ip.parse().unwrap(), 1)));
        head
    };
    assert_eq!(sold(&gate, || request("192.0.2.1"), 10).await, 2);
    assert_eq!(sold(&gate, || request("::ffff:192.0.2.1"), 10).await, 0);
    assert_eq!(sold(&gate, || request("2001:db8::1"), 10).await, 2);
    assert_eq!(sold(&gate, || from("192.0.2.1"), 10).await, 0, "one client, however it is known");
}

#[tokio::test]
async fn a_header_that_nobody_is_trusted_with_makes_no_new_client() {
    let shop = Shop::with(|builder| builder.with_client_challenges(3, MINUTE));
    let gate = shop.gate("svc");
    let mut sold_in_all = 0;
    for n in 0..50 {
        let forged = format!("198.51.{n}.1");
        let element = format!("for={forged}");
        let lines = [("x-forwarded-for", &*forged), ("forwarded", &*element), ("x-real-ip", &*forged)];
        sold_in_all += sold(&gate, || from_with("192.0.2.1", &lines), 1).await;
    }
    assert_eq!(sold_in_all, 3);
}

#[tokio::test]
async fn clients_behind_a_trusted_proxy_are_told_apart_by_the_header_it_writes() {
    let shop = Shop::with(|builder| {
        builder
            .with_client_challenges(3, MINUTE)
            .with_trusted_proxies(ForwardedHeader::XForwardedFor, &["10.0.0.0/8"])
    });
    let gate = shop.gate("svc");
    let by = |peer: &'static str, line: String| move || from_with(peer, &[("x-forwarded-for", &line)]);
    assert_eq!(sold(&gate, by("10.0.0.1", "198.51.100.1".into()), 10).await, 3);
    assert_eq!(sold(&gate, by("10.0.0.2", "198.51.101.1".into()), 10).await, 3);
    assert_eq!(sold(&gate, by("10.0.0.2", "198.51.100.1".into()), 10).await, 0, "through another proxy");
    let mut forged = 0;
    for n in 0..50 {
        forged += sold(&gate, by("10.0.0.1", format!("6.6.{n}.6, 198.51.100.1")), 1).await;
        forged += sold(&gate, by("198.51.100.1", format!("6.6.{n}.6")), 1).await;
    }
    assert_eq!(forged, 0, "what stands left of the client the client wrote");
    // `Forwarded` is not what these proxies write.
    assert_eq!(
        sold(&gate, || from_with("10.0.0.1", &[("forwarded", "for=6.6.6.6")]), 10).await,
        3,
        "the proxy itself"
    );
    assert_eq!(sold(&gate, || from_with("10.0.9.9", &[("forwarded", "for=7.7.7.7")]), 10).await, 3);
    assert_eq!(sold(&gate, || from_with("10.0.0.9", &[("forwarded", "for=8.8.8.8")]), 10).await, 0);

    let builder = Issuer::builder(keys(1), DevBackend::new()).with_network(Network::Regtest);
    let error = builder.with_trusted_proxies(ForwardedHeader::Forwarded, &["0.0.0.0/0"]).build().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Proxies);
}

#[tokio::test]
async fn a_closure_may_say_who_the_client_is() {
    let shop = Shop::with(|builder| {
        builder
            .with_client_challenges(2, MINUTE)
            .with_client(|head| head.headers.get("x-account").map(ClientId::new))
    });
    let gate = shop.gate("svc");
    assert_eq!(sold(&gate, || from_with("192.0.2.1", &[("x-account", "a")]), 5).await, 2);
    assert_eq!(sold(&gate, || from_with("192.0.2.1", &[("x-account", "b")]), 5).await, 2);
    assert_eq!(sold(&gate, || from("192.0.2.1"), 20).await, 20, "nobody: the server's limit alone");
}

#[tokio::test]
async fn look_ups_without_a_preimage_are_counted_as_challenges_are() {
    let shop = Shop::with(|builder| builder.with_client_challenges(20, MINUTE).with_settled_tokens());
    let gate = shop.gate("svc");
    let mut tokens = Vec::new();
    for _ in 0..10 {
        let challenge = challenge(&ask(&gate, from("192.0.2.1")).await);
        tokens.push(format!("L402 {}", challenge.token().to_base64()));
    }
    let (mut pending, mut limited) = (0, 0);
    for _ in 0..3 {
        for token in &tokens {
            let response = ask(&gate, from_with("192.0.2.1", &[("authorization", token)])).await;
            pending += usize::from(code(&response) == "payment_pending");
            limited += usize::from(code(&response) == "too_many_challenges");
        }
        shop.clock.advance(5 * SECOND);
    }
    // 10 challenges and 10 look-ups, and 1 more each 3 seconds.
    assert_eq!((pending, limited, shop.node.looked_up()), (13, 17, 13));
}

mod free {
    use super::*;
    use l402::Basis;

    async fn bases(gate: &Gate, head: impl Fn() -> Parts, n: usize) -> (usize, usize) {
        let (mut free, mut refused) = (0, 0);
        for _ in 0..n {
            match gate.admit(&mut head()).await {
                Ok(admission) => {
                    assert_eq!(admission.grant().basis(), Basis::FreeTier);
                    assert!(!admission.grant().is_paid());
                    assert_eq!(admission.grant().remaining(), None);
                    free += 1;
                }
                Err(response) => {
                    assert_eq!(code(&response), "missing_credential");
                    refused += 1;
                }
            }
        }
        (free, refused)
    }

    #[tokio::test]
    async fn a_client_has_n_requests_in_a_window_before_it_is_asked_to_pay() {
        let shop = Shop::new();
        let gate = Gate::builder(&shop.issuer, "svc", offer()).with_free_requests(3, DAY).build().unwrap();
        assert_eq!(bases(&gate, || from("192.0.2.1"), 5).await, (3, 2));
        assert_eq!(bases(&gate, || from("192.0.2.200"), 5).await, (0, 5), "the same network");
        assert_eq!(bases(&gate, || from("192.0.3.1"), 5).await, (3, 2), "another");
        assert_eq!(shop.node.asked(), 9, "a free request asks nobody");
        shop.clock.advance(DAY.saturating_sub(SECOND));
        assert_eq!(bases(&gate, || from("192.0.2.1"), 1).await, (0, 1), "no trickle within the window");
        shop.clock.advance(SECOND);
        assert_eq!(bases(&gate, || from("192.0.2.1"), 5).await, (3, 2));
    }

    #[tokio::test]
    async fn where_the_client_is_not_known_nothing_is_free() {
        let shop = Shop::new();
        let gate = Gate::builder(&shop.issuer, "svc", offer()).with_free_requests(3, DAY).build().unwrap();
        let lines =
            [("x-forwarded-for", "192.0.2.1"), ("forwarded", "for=192.0.2.1"), ("x-real-ip", "192.0.2.1")];
        assert_eq!(bases(&gate, || head(&lines), 5).await, (0, 5));
        let mut all = (0, 0);
        for n in 0..20 {
            let line = format!("198.51.{n}.1");
            let (free, refused) =
                bases(&gate, || from_with("192.0.2.1", &[("x-forwarded-for", &line)]), 1).await;
            all = (all.0 + free, all.1 + refused);
        }
        assert_eq!(all, (3, 17), "a header makes no client");
    }

    #[tokio::test]
    async fn only_requests_without_a_credential_are_free_and_counted() {
        let shop = Shop::new();
        let gate = Gate::builder(&shop.issuer, "svc", offer()).with_free_requests(2, DAY).build().unwrap();
        let with = |credential: &HeaderValue| {
            from_with("192.0.2.1", &[("authorization", credential.to_str().unwrap())])
        };
        let good = gate.test_credential();
        for _ in 0..5 {
            assert_eq!(gate.admit(&mut with(&good)).await.unwrap().grant().basis(), Basis::Preimage);
            let broken = gate.admit(&mut with(&HeaderValue::from_static("L402 x:y"))).await.unwrap_err();
            assert_eq!(broken.status(), 401);
        }
        shop.clock.advance(2 * DAY);
        let expired = gate.admit(&mut with(&good)).await.unwrap_err();
        assert_eq!(code(&expired), "expired");
        assert_eq!(bases(&gate, || from("192.0.2.1"), 5).await, (2, 3));
    }

    #[tokio::test]
    async fn what_costs_nothing_and_what_is_not_for_sale_counts_for_none() {
        let shop = Shop::new();
        let priced = Offer::priced(
            |head| match head.uri.path() {
                "/free" => Ok(Price::Free),
                "/" => Ok(Price::sat(1)),
                _ => Err(l402::PriceError::reject(http::StatusCode::NOT_FOUND)),
            },
            Access::once(),
        );
        let gate = Gate::builder(&shop.issuer, "svc", priced).with_free_requests(1, DAY).build().unwrap();
        let at = |path: &'static str| {
            let mut head = from("192.0.2.1");
            head.uri = path.parse().unwrap();
            head
        };
        for _ in 0..5 {
            assert_eq!(gate.admit(&mut at("/free")).await.unwrap().grant().basis(), Basis::FreePrice);
            assert_eq!(gate.admit(&mut at("/none")).await.unwrap_err().status(), 404);
        }
        assert_eq!(bases(&gate, || at("/"), 3).await, (1, 2));
    }

    #[tokio::test]
    async fn gates_of_one_service_count_together_and_other_services_apart() {
        let shop = Shop::new();
        let api = Gate::builder(&shop.issuer, "api", offer()).with_free_requests(2, DAY);
        let (a, b) = (api.clone().build().unwrap(), api.build().unwrap());
        let other = Gate::builder(&shop.issuer, "other", offer()).with_free_requests(2, DAY).build().unwrap();
        assert_eq!(bases(&a, || from("192.0.2.1"), 1).await, (1, 0));
        assert_eq!(bases(&b, || from("192.0.2.1"), 3).await, (1, 2));
        assert_eq!(bases(&a, || from("192.0.2.1"), 1).await, (0, 1));
        assert_eq!(bases(&other, || from("192.0.2.1"), 3).await, (2, 1));
    }

    #[tokio::test]
    async fn a_free_answer_is_kept_from_shared_caches_and_has_no_ratelimit_fields() {
        let shop = Shop::new();
        let offer = Offer::new(Price::sat(1), Access::uses(5));
        let gate = Gate::builder(&shop.issuer, "svc", offer).with_free_requests(1, DAY).build().unwrap();
        let admission = gate.admit(&mut from("192.0.2.1")).await.unwrap();
        let response = Response::builder().header("cache-control", "public, max-age=60").body(()).unwrap();
        let response = admission.settle(response);
        assert_eq!(response.headers()["cache-control"], "private, max-age=60");
        assert_eq!(response.headers()["vary"], "Authorization");
        assert!(!response.headers().contains_key("ratelimit"));
        assert!(!response.headers().contains_key("ratelimit-policy"));
    }
}

mod reuse {
    use super::*;

    fn shop(configure: impl FnOnce(IssuerBuilder) -> IssuerBuilder) -> Shop {
        Shop::with(|builder| {
            configure(builder.reuse_challenge(|head| head.headers.get("x-account").map(ClientId::new)))
        })
    }

    fn by(account: &str) -> Parts {
        from_with("192.0.2.1", &[("x-account", account)])
    }

    #[tokio::test]
    async fn a_client_that_asks_again_gets_the_same_challenge_for_a_minute() {
        let shop = shop(|builder| builder.with_client_challenges(5, DAY).with_server_challenges(5, DAY));
        let gate = shop.gate("svc");
        let first = hash(&ask(&gate, by("a")).await);
        for _ in 0..59 {
            shop.clock.advance(SECOND);
            assert_eq!(hash(&ask(&gate, by("a")).await), first, "and no limit counts it");
        }
        assert_eq!(shop.node.asked(), 1);
        assert_ne!(hash(&ask(&gate, by("b")).await), first, "another client");
        let unknown =
            [hash(&ask(&gate, from("192.0.2.1")).await), hash(&ask(&gate, from("192.0.2.1")).await)];
        assert!(unknown[0] != unknown[1] && !unknown.contains(&first), "nobody in particular");
        shop.clock.advance(SECOND);
        assert_ne!(hash(&ask(&gate, by("a")).await), first, "a minute is over");
        assert_eq!(shop.node.asked(), 5);
    }

    #[tokio::test]
    async fn half_of_the_time_to_pay_is_left_at_least() {
        let shop = shop(|builder| builder.with_challenge_lifetime(40 * SECOND));
        let gate = shop.gate("svc");
        let first = hash(&ask(&gate, by("a")).await);
        shop.clock.advance(19 * SECOND);
        assert_eq!(hash(&ask(&gate, by("a")).await), first);
        shop.clock.advance(SECOND);
        assert_ne!(hash(&ask(&gate, by("a")).await), first);
    }

    #[tokio::test]
    async fn a_challenge_whose_token_was_used_is_not_served_again() {
        for settled in [false, true] {
            let shop = shop(|builder| if settled { builder.with_settled_tokens() } else { builder });
            let gate = shop.gate("svc");
            let first = ask(&gate, by("a")).await;
            let mut paid = by("a");
            let credential = shop.pay(&first);
            let bare = format!("L402 {}", challenge(&first).token().to_base64());
            let credential = if settled { bare.parse().unwrap() } else { credential };
            paid.headers.insert(AUTHORIZATION, credential);
            assert!(gate.admit(&mut paid).await.is_ok());
            assert_ne!(hash(&ask(&gate, by("a")).await), hash(&first));
        }
    }

    #[tokio::test]
    async fn another_service_offer_price_or_binding_has_a_challenge_of_its_own() {
        let caveats = CaveatRegistry::new()
            .bind("tenant", |head| head.headers.get("x-tenant")?.to_str().ok().map(str::to_owned));
        let shop = shop(|builder| builder.with_caveats(caveats));
        let by_price =
            Offer::priced(|head| Ok(Price::sat(head.uri.path().len() as u64)), Access::once()).with_id("b");
        let at = |path: &str| {
            let mut head = by("a");
            head.uri = path.parse().unwrap();
            head
        };
        let tenant = |name| from_with("192.0.2.1", &[("x-account", "a"), ("x-tenant", name)]);
        let api = Gate::builder(&shop.issuer, "api", offer().with_tier(1));
        let costs_more =
            api.clone().add_offer(by_price.clone().with_tier(2)).require_tier(2).build().unwrap();
        let (api, other) = (api.build().unwrap(), shop.gate("other"));
        let mut seen = Vec::new();
        for (name, gate, head) in [
            ("a service", &api, by("a")),
            ("another service", &other, by("a")),
            ("another offer", &costs_more, at("/")),
            ("another price", &costs_more, at("/longer")),
            ("a binding", &api, tenant("x")),
            ("another binding", &api, tenant("y")),
        ] {
            let hash = hash(&ask(gate, head.clone()).await);
            assert!(!seen.contains(&hash), "{name}");
            assert_eq!(super::hash(&ask(gate, head).await), hash, "{name}, again");
            seen.push(hash);
        }
    }

    #[tokio::test]
    async fn what_was_revoked_or_signed_with_another_key_is_not_served_again() {
        let shop = shop(|builder| builder);
        let gate = shop.gate("svc");
        let first = hash(&ask(&gate, by("a")).await);
        shop.issuer.revoke(Revocation::Token(first)).await.unwrap();
        let second = hash(&ask(&gate, by("a")).await);
        assert_ne!(second, first);
        shop.clock.advance(SECOND);
        shop.issuer.revoke(Revocation::Service { name: "svc".into(), issued_before: NOW + 1 }).await.unwrap();
        let third = hash(&ask(&gate, by("a")).await);
        assert!(![first, second].contains(&third));
        shop.issuer.set_keys(&keys(2)).unwrap();
        let fourth = hash(&ask(&gate, by("a")).await);
        assert!(![first, second, third].contains(&fourth));
        assert_eq!(hash(&ask(&gate, by("a")).await), fourth);
    }
}

mod pool {
    use super::*;
    use std::collections::HashSet;

    fn gate(shop: &Shop, size: usize) -> Gate {
        Gate::builder(&shop.issuer, "svc", offer()).with_invoice_pool(size).build().unwrap()
    }

    /// Asks until the pool is full.
    async fn filled(shop: &Shop, size: usize) -> Gate {
        let gate = gate(shop, size);
        for _ in 0..2 * size {
            ask(&gate, head(&[])).await;
            settle_tasks().await;
        }
        gate
    }

    #[tokio::test]
    async fn a_challenge_from_the_pool_does_not_wait_for_the_backend() {
        let shop = Shop::new();
        let gate = filled(&shop, 8).await;
        shop.node.set(Mode::Hangs);
        let mut seen = HashSet::new();
        for _ in 0..8 {
            let mut head = head(&[]);
            let mut admit = std::pin::pin!(gate.admit(&mut head));
            let polled = admit.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop()));
            let std::task::Poll::Ready(Err(response)) = polled else { panic!("it waits") };
            assert!(seen.insert(hash(&response)));
            // It is as good as any other.
            let credential = shop.pay(&response);
            let mut paid = super::head(&[("authorization", credential.to_str().unwrap())]);
            let admission = gate.admit(&mut paid).await.unwrap();
            let expires = admission.grant().expires_at().unwrap();
            let now = l402::Clock::now(&shop.clock);
            assert!(expires >= now + DAY, "all that was sold");
        }
    }

    #[tokio::test]
    async fn only_use_fills_it_and_no_more_than_its_size() {
        let shop = Shop::new();
        let gate = gate(&shop, 4);
        settle_tasks().await;
        assert_eq!((shop.node.asked(), tasks()), (0, 0), "nobody has asked");
        let mut asked = Vec::new();
        for _ in 0..6 {
            ask(&gate, head(&[])).await;
            settle_tasks().await;
            asked.push(shop.node.asked());
        }
        // The first waits for its own; each has up to two made, until four are ready.
        assert_eq!(asked, [3, 5, 7, 8, 9, 10]);
        assert_eq!(tasks(), 0);
        shop.clock.advance(DAY);
        settle_tasks().await;
        assert_eq!(shop.node.asked(), 10, "an idle server asks for nothing");
    }

    #[tokio::test]
    async fn an_invoice_with_less_than_half_its_life_left_is_thrown_away() {
        for (age, from_pool) in [(149, true), (150, true), (151, false), (400, false)] {
            let shop = Shop::new();
            let gate = filled(&shop, 4).await;
            shop.clock.advance(age * SECOND);
            shop.node.set(Mode::Fails);
            let response = ask(&gate, head(&[])).await;
            assert_eq!(response.status() == 402, from_pool, "{age}");
        }
    }

    #[tokio::test]
    async fn no_invoice_goes_to_two_clients() {
        let shop = Shop::with(|builder| builder.with_server_challenges(u64::MAX, SECOND));
        let gate = gate(&shop, 32);
        let mut seen = HashSet::new();
        for _ in 0..20 {
            let tasks: Vec<_> = (0..50)
                .map(|_| {
                    let gate = gate.clone();
                    tokio::spawn(async move { hash(&ask(&gate, head(&[])).await) })
                })
                .collect();
            for task in tasks {
                assert!(seen.insert(task.await.unwrap()));
            }
        }
        assert_eq!(seen.len(), 1000);
    }

    #[tokio::test]
    async fn what_was_ready_before_keys_changed_or_tokens_were_revoked_is_not_sold() {
        for what in ["keys", "service", "token"] {
            let shop = Shop::new();
            let gate = filled(&shop, 2).await;
            shop.clock.advance(SECOND);
            match what {
                "keys" => shop.issuer.set_keys(&keys(2)).unwrap(),
                "service" => {
                    let revoked = Revocation::Service { name: "svc".into(), issued_before: NOW + 1 };
                    shop.issuer.revoke(revoked).await.unwrap();
                }
                _ => {
                    let other = Gate::builder(&shop.issuer, "x", offer()).build().unwrap();
                    shop.issuer.revoke(Revocation::Token(hash(&ask(&other, head(&[])).await))).await.unwrap();
                }
            }
            let before = shop.node.asked();
            let response = ask(&gate, head(&[])).await;
            let from_pool = shop.node.asked() == before;
            assert_eq!(from_pool, what == "token", "{what}: another's token is nothing to these");
            let credential = shop.pay(&response);
            let mut paid = head(&[("authorization", credential.to_str().unwrap())]);
            assert!(gate.admit(&mut paid).await.is_ok(), "{what}: what is sold opens the gate");
        }
    }

    #[tokio::test]
    async fn a_failing_backend_is_left_alone_for_a_while_and_no_task_stays() {
        let shop = Shop::new();
        let gate = gate(&shop, 16);
        shop.node.set(Mode::Fails);
        for _ in 0..20 {
            assert_eq!(ask(&gate, head(&[])).await.status(), 503);
            settle_tasks().await;
        }
        // Two were to be ready; then those alone ask who wait for an answer.
        assert_eq!((shop.node.asked(), tasks()), (22, 0));
        shop.clock.advance(5 * SECOND);
        shop.node.set(Mode::Good);
        assert_eq!(ask(&gate, head(&[])).await.status(), 402);
        settle_tasks().await;
        assert_eq!((shop.node.asked(), tasks()), (25, 0));
    }

    #[tokio::test]
    async fn a_backend_that_names_a_time_is_left_alone_for_an_hour_at_most() {
        let shop = Shop::new();
        let gate = gate(&shop, 16);
        shop.node.set(Mode::Limits(Duration::MAX));
        let limited = ask(&gate, head(&[])).await;
        assert_eq!(
            (limited.status().as_u16(), &limited.headers()["retry-after"]),
            (503, &"3600".parse().unwrap())
        );
        settle_tasks().await;
        shop.node.set(Mode::Good);
        for (wait, asked) in [(Duration::ZERO, 1), (3_599 * SECOND, 1), (SECOND, 3)] {
            shop.clock.advance(wait);
            let before = shop.node.asked();
            assert_eq!(ask(&gate, head(&[])).await.status(), 402);
            settle_tasks().await;
            assert_eq!(shop.node.asked() - before, asked, "{wait:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_hanging_backend_has_no_more_tasks_than_the_pool_is_large() {
        let shop = Shop::new();
        let gate = gate(&shop, 4);
        shop.node.set(Mode::Hangs);
        let asked: Vec<_> = (0..40)
            .map(|_| {
                let gate = gate.clone();
                tokio::spawn(async move { ask(&gate, head(&[])).await.status().as_u16() })
            })
            .collect();
        settle_tasks().await;
        assert_eq!(tasks(), 40 + 4);
        for task in asked {
            assert_eq!(task.await.unwrap(), 503);
        }
        settle_tasks().await;
        assert_eq!(tasks(), 0, "their time is up");
    }

    #[test]
    fn a_runtime_that_ends_takes_its_refills_with_it() {
        let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let shop = Shop::new();
        let (first, second) = (runtime(), runtime());
        let gate = gate(&shop, 4);
        first.block_on(async {
            assert_eq!(ask(&gate, head(&[])).await.status(), 402);
            shop.node.set(Mode::Hangs);
            settle_tasks().await;
            assert_eq!(tasks(), 2);
        });
        drop(first);
        shop.node.set(Mode::Good);
        second.block_on(async {
            let before = shop.node.asked();
            for _ in 0..8 {
                ask(&gate, head(&[])).await;
                settle_tasks().await;
            }
            assert_eq!((shop.node.asked() - before, tasks()), (8 + 4, 0), "four are ready again");
        });
    }

    #[tokio::test]
    async fn all_that_the_backend_is_asked_counts_for_the_server() {
        let shop = Shop::with(|builder| builder.with_server_challenges(10, MINUTE));
        let gate = gate(&shop, 4);
        for _ in 0..30 {
            ask(&gate, head(&[])).await;
            settle_tasks().await;
        }
        assert_eq!(shop.node.asked(), 10);
        assert_eq!(code(&ask(&gate, head(&[])).await), "too_many_challenges");
    }

    #[tokio::test]
    async fn requests_that_are_bound_to_something_else_take_what_fits_them() {
        let caveats = CaveatRegistry::new()
            .bind("tenant", |head| head.headers.get("x-tenant")?.to_str().ok().map(str::to_owned));
        let shop = Shop::with(|builder| builder.with_caveats(caveats));
        let gate = filled(&shop, 2).await;
        let before = shop.node.asked();
        for tenant in ["a", "b"] {
            let response = ask(&gate, head(&[("x-tenant", tenant)])).await;
            let credential = shop.pay(&response);
            let with =
                |tenant| head(&[("x-tenant", tenant), ("authorization", credential.to_str().unwrap())]);
            assert!(gate.admit(&mut with(tenant)).await.is_ok());
            assert!(gate.admit(&mut with("c")).await.is_err());
        }
        // Two challenges for those who pay, and two for those whom the tokens do not let in.
        assert_eq!(shop.node.asked(), before + 4, "they wait, and the pool keeps what it has");
        shop.node.set(Mode::Fails);
        assert_eq!(ask(&gate, head(&[])).await.status(), 402);
    }

    #[tokio::test]
    async fn a_pool_of_no_fixed_price_does_not_build() {
        let shop = Shop::new();
        let by_price = Offer::priced(|_| Ok(Price::sat(1)), Access::once());
        for (offer, size) in [(by_price, 4), (Offer::new(Price::Free, Access::once()), 4), (offer(), 1025)] {
            let error =
                Gate::builder(&shop.issuer, "svc", offer).with_invoice_pool(size).build().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Offer);
        }
        assert!(Gate::builder(&shop.issuer, "svc", offer()).with_invoice_pool(0).build().is_ok());
    }
}

#[test]
fn a_client_id_is_made_of_an_address_or_a_name() {
    let ip: IpAddr = "192.0.2.1".parse().unwrap();
    assert_eq!(ClientId::from(ip), ClientId::from(ip));
    assert_ne!(ClientId::from(ip), ClientId::new("192.0.2"));
}
