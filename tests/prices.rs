//! Prices that are computed, asked for, or in another currency: never free by
//! mistake, and a token never opens what costs more than was paid for it.

#![allow(missing_docs)]

#[path = "support/svc.rs"]
mod svc;

use std::future::pending;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use axum::RequestPartsExt as _;
use http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{HeaderValue, Request, Response, StatusCode};
use l402::{
    Access, Basis, CaveatRegistry, Challenge, Currency, DevBackend, ErrorKind, ExchangeRate, FixedClock,
    Gate, HOUR, Issuer, IssuerBuilder, KeyRing, L402Layer, MINUTE, MemoryLedger, Network, Offer, Price,
    PriceError, Pricer, RateSource, RootKey,
};
use lightning_invoice::Bolt11Invoice;
use svc::{NOW, Paid, Shop, call, code, ok, outcome, request};
use tower::Layer as _;

const USD: Currency = Currency::new("USD");
const EUR: Currency = Currency::new("EUR");

/// What is asked: the price of every request, or something else.
#[derive(Clone, Copy, Debug)]
enum Says {
    Costs(Price),
    NotFound,
    Unavailable,
    Fails,
    OutOfRange,
    Panics,
    Hangs,
}

use Says::{Costs, Fails, Hangs, NotFound, OutOfRange, Panics, Unavailable};

#[derive(Clone)]
struct Desk(Arc<(Mutex<Says>, AtomicUsize)>);

impl Desk {
    fn new(says: Says) -> Self {
        Self(Arc::new((Mutex::new(says), AtomicUsize::new(0))))
    }

    fn says(&self, says: Says) {
        *self.0.0.lock().unwrap() = says;
    }

    fn asked(&self) -> usize {
        self.0.1.load(Ordering::SeqCst)
    }

    async fn answer(&self) -> Result<Price, PriceError> {
        self.0.1.fetch_add(1, Ordering::SeqCst);
        tokio::task::yield_now().await;
        let says = *self.0.0.lock().unwrap();
        match says {
            Costs(price) => Ok(price),
            NotFound => Err(PriceError::reject(StatusCode::NOT_FOUND)),
            Unavailable => Err(PriceError::unavailable("the database is down")),
            Fails => Err(PriceError::failed("the table has a hole")),
            OutOfRange => Ok(Price::try_msat(0)?),
            Panics => panic!("the desk breaks"),
            Hangs => pending().await,
        }
    }
}

#[async_trait]
impl Pricer for Desk {
    async fn price(&self, _: &Parts) -> Result<Price, PriceError> {
        self.answer().await
    }
}

/// The same desk behind each way to ask it.
fn offers(desk: &Desk, access: Access) -> [Offer; 2] {
    let other = desk.clone();
    let closure = move |_: &Parts| {
        let desk = other.clone();
        async move { desk.answer().await }
    };
    [Offer::priced_async(closure, access), Offer::priced_by(desk.clone(), access)]
}

fn amount_msat<B>(refused: &Response<B>) -> u64 {
    let challenge: Challenge = refused.headers()[WWW_AUTHENTICATE].to_str().unwrap().parse().unwrap();
    challenge.invoice().parse::<Bolt11Invoice>().unwrap().amount_milli_satoshis().unwrap()
}

async fn present(gate: &Gate, credential: Option<&HeaderValue>) -> Result<Basis, Response<bytes::Bytes>> {
    let mut head = request(credential).into_parts().0;
    gate.admit(&mut head).await.map(|admission| admission.grant().basis())
}

#[tokio::test]
async fn what_was_asked_is_sold_and_opens_what_costs_as_much() {
    let desk = Desk::new(Costs(Price::sat(5)));
    for (i, offer) in offers(&desk, Access::uses(9)).into_iter().enumerate() {
        let shop = Shop::new();
        let gate = Gate::new(&shop.issuer, "docs", offer).unwrap();
        desk.says(Costs(Price::sat(5)));
        let refused = present(&gate, None).await.unwrap_err();
        assert_eq!((outcome(&refused), amount_msat(&refused)), ((402, Some("missing_credential")), 5_000));
        let paid = shop.pay(&refused);
        assert_eq!(present(&gate, Some(&paid.credential())).await.unwrap(), Basis::Preimage, "{i}");
        desk.says(Costs(Price::sat(4)));
        assert_eq!(present(&gate, Some(&paid.credential())).await.unwrap(), Basis::Preimage, "{i}");
        assert_eq!(shop.used(paid.hash()).await, 2);

        desk.says(Costs(Price::msat(5_001)));
        let refused = present(&gate, Some(&paid.credential())).await.unwrap_err();
        assert_eq!((outcome(&refused), amount_msat(&refused)), ((402, Some("price_too_high")), 5_001));
        assert_eq!(shop.used(paid.hash()).await, 2, "what is refused takes no use");
    }
}

#[tokio::test(start_paused = true)]
async fn what_has_no_price_is_never_free() {
    let desk = Desk::new(Costs(Price::sat(5)));
    for offer in offers(&desk, Access::uses(3)) {
        let shop = Shop::new();
        let gate = Gate::new(&shop.issuer, "docs", offer).unwrap();
        desk.says(Costs(Price::sat(5)));
        let paid = Paid::buy(&shop, &gate).await;
        let inner = ok();
        let mut service = inner.behind(&gate);
        for (says, status, code) in [
            (NotFound, 404, "not_for_sale"),
            (Unavailable, 503, "price_unavailable"),
            (Hangs, 503, "price_unavailable"),
            (Fails, 500, "price_failed"),
            (OutOfRange, 500, "price_failed"),
            (Panics, 500, "price_failed"),
        ] {
            desk.says(says);
            for credential in [None, Some(&paid.credential())] {
                let began = tokio::time::Instant::now();
                let response = call(&mut service, request(credential)).await.unwrap();
                assert_eq!(outcome(&response), (status, Some(code)), "{says:?}");
                assert!(!response.headers().contains_key(WWW_AUTHENTICATE), "{says:?}");
                assert_eq!(response.headers().contains_key(RETRY_AFTER), status == 503, "{says:?}");
                assert!(began.elapsed() <= Duration::from_secs(5), "{says:?}");
            }
        }
        assert_eq!((inner.calls(), shop.used(paid.hash()).await), (0, 0));
    }
}

#[tokio::test]
async fn a_closure_that_panics_is_a_500_too() {
    let shop = Shop::new();
    let offer = Offer::priced(|_| panic!("the closure breaks"), Access::once());
    let gate = Gate::new(&shop.issuer, "docs", offer).unwrap();
    let refused = present(&gate, None).await.unwrap_err();
    assert_eq!(outcome(&refused), (500, Some("price_failed")));
}

#[tokio::test]
async fn what_is_free_by_the_request_is_no_shared_caches_to_give() {
    let shop = Shop::new();
    let offer = Offer::priced(|_| Ok(Price::Free), Access::pass(HOUR));
    let gate = Gate::new(&shop.issuer, "docs", offer).unwrap();
    let public = svc::inner(|_| {
        Response::builder().header("cache-control", "public, max-age=600").body(String::new()).unwrap()
    });
    let response = call(&mut public.behind(&gate), request(None)).await.unwrap();
    assert_eq!(response.headers()["cache-control"], "private, max-age=600");
}

#[tokio::test]
async fn what_is_said_to_be_free_is_free() {
    let desk = Desk::new(Costs(Price::sat(5)));
    for offer in offers(&desk, Access::uses(3)) {
        let shop = Shop::new();
        let gate = Gate::new(&shop.issuer, "docs", offer).unwrap();
        desk.says(Costs(Price::sat(5)));
        let paid = Paid::buy(&shop, &gate).await;
        desk.says(Costs(Price::Free));
        assert_eq!(present(&gate, None).await.unwrap(), Basis::FreePrice);
        assert_eq!(present(&gate, Some(&paid.credential())).await.unwrap(), Basis::FreePrice);
        assert_eq!(shop.used(paid.hash()).await, 0);
        let inner = ok();
        let broken = HeaderValue::from_static("L402 broken:broken");
        let response = call(&mut inner.behind(&gate), request(Some(&broken))).await.unwrap();
        assert_eq!((response.status(), inner.calls()), (StatusCode::UNAUTHORIZED, 0));
    }
}

#[tokio::test]
async fn a_gate_within_a_gate_asks_its_own_price() {
    let desk = Desk::new(Costs(Price::sat(5)));
    let shop = Shop::new();
    let offer = Offer::priced_by(desk.clone(), Access::uses(9)).with_capabilities(&["read", "write"]);
    let docs = Gate::builder(&shop.issuer, "docs", offer);
    let read = docs.clone().require_capability("read").build().unwrap();
    let write = docs.require_capability("write").build().unwrap();
    let paid = Paid::buy(&shop, &read).await;
    let inner = ok();
    let mut service = L402Layer::new(read).layer(inner.behind(&write));
    let response = call(&mut service, request(Some(&paid.credential()))).await.unwrap();
    assert_eq!((outcome(&response), inner.calls()), ((200, None), 1));
    assert_eq!((shop.used(paid.hash()).await, desk.asked()), (1, 3));

    // An inner gate whose price rose past what the outer one's token is bound to.
    let rising = Arc::new(AtomicU64::new(0));
    let price = rising.clone();
    let rises = Offer::priced_async(
        move |_: &Parts| {
            let n = price.fetch_add(1, Ordering::SeqCst);
            async move { Ok(Price::sat(if n == 2 { 9 } else { 5 })) }
        },
        Access::uses(9),
    );
    let outer = Gate::builder(&shop.issuer, "rise", rises);
    let (outer, within) = (outer.clone().build().unwrap(), outer.build().unwrap());
    let paid = Paid::buy(&shop, &outer).await;
    let inner = ok();
    let mut service = L402Layer::new(outer).layer(inner.behind(&within));
    let response = call(&mut service, request(Some(&paid.credential()))).await.unwrap();
    assert_eq!((outcome(&response), inner.calls()), ((500, Some("nested_gate")), 0));
    assert_eq!(rising.load(Ordering::SeqCst), 4, "sold, admitted, too dear, and too dear to be free");
}

#[tokio::test]
async fn those_who_wait_for_a_price_are_bounded_and_hold_up_no_fixed_price() {
    let desk = Desk::new(Hangs);
    let wallet = DevBackend::new();
    let issuer = Issuer::builder(KeyRing::new(RootKey::generate()), wallet.clone())
        .with_network(Network::Regtest)
        .with_invoice_limits(1, MINUTE)
        .build()
        .unwrap();
    let gate = Gate::new(&issuer, "docs", Offer::priced_by(desk.clone(), Access::pass(HOUR))).unwrap();
    let mut first = Box::pin(present(&gate, None));
    while desk.asked() == 0 {
        assert!(svc::poll_once(first.as_mut()).is_pending());
    }
    let refused = present(&gate, None).await.unwrap_err();
    assert_eq!((outcome(&refused), desk.asked()), ((503, Some("busy")), 1));
    let fixed = Gate::new(&issuer, "news", Offer::new(Price::sat(1), Access::pass(HOUR))).unwrap();
    assert_eq!(outcome(&present(&fixed, None).await.unwrap_err()), (402, Some("missing_credential")));
}

#[tokio::test]
async fn a_price_can_come_from_path_and_state() {
    #[derive(Clone)]
    struct Db;
    impl Db {
        async fn pages(&self, id: u64) -> Result<Option<u64>, std::io::Error> {
            tokio::task::yield_now().await;
            Ok((id < 100).then_some(id))
        }
    }
    let db = Db;
    let docs = Offer::priced_async(
        move |head| {
            let (mut head, db) = (head.clone(), db.clone());
            async move {
                use axum::extract::Path;
                let not_found = || PriceError::reject(StatusCode::NOT_FOUND);
                let Path(id) = head.extract::<Path<u64>>().await.map_err(|_| not_found())?;
                let pages = db.pages(id).await.map_err(PriceError::unavailable)?.ok_or_else(not_found)?;
                Ok(Price::try_msat(pages * 500)?)
            }
        },
        Access::once(),
    );
    let shop = Shop::new();
    let gate = Gate::new(&shop.issuer, "docs", docs).unwrap();
    let app: axum::Router = axum::Router::new()
        .route("/docs/{id}", axum::routing::get(|| async { "text" }).route_layer(L402Layer::new(gate)));
    for (path, status, msat) in [
        ("/docs/3", 402, Some(1_500)),
        ("/docs/42", 402, Some(21_000)),
        ("/docs/100", 404, None),
        ("/docs/x", 404, None),
        ("/docs/0", 500, None),
    ] {
        let request = Request::get(path).body(axum::body::Body::empty()).unwrap();
        let response = tower::ServiceExt::oneshot(app.clone(), request).await.unwrap();
        assert_eq!(response.status(), status, "{path}");
        assert_eq!(msat.map(|_| amount_msat(&response)), msat, "{path}");
    }
}

/// A closure that names what is cheap by the path as it was sent, and one that
/// goes by what the router made of it: neither is fooled by how a path is spelled.
#[tokio::test]
async fn another_spelling_of_a_path_is_not_cheaper() {
    use axum::extract::Path;

    let (low, high) = (Price::sat(5), Price::sat(20));
    let as_sent = move |head: &Parts| Ok(if head.uri.path().ends_with("/sd") { low } else { high });
    let decoded = move |head: &Parts| {
        let mut head = head.clone();
        async move {
            let quality = head.extract::<Path<(u64, String)>>().await.map(|Path((_, quality))| quality);
            match quality.as_deref() {
                Ok("sd") => Ok(low),
                Ok("hd") => Ok(high),
                _ => Err(PriceError::reject(StatusCode::NOT_FOUND)),
            }
        }
    };
    let shop = Shop::new();
    let by_text = Gate::new(&shop.issuer, "text", Offer::priced(as_sent, Access::once())).unwrap();
    let by_meaning =
        Gate::new(&shop.issuer, "meaning", Offer::priced_async(decoded, Access::once())).unwrap();
    let serve = async |Path((id, quality)): Path<(u64, String)>| format!("{id} {quality}");
    let app: axum::Router = axum::Router::new()
        .route("/text/{id}/{quality}", axum::routing::get(serve).route_layer(L402Layer::new(by_text)))
        .route("/meaning/{id}/{quality}", axum::routing::get(serve).route_layer(L402Layer::new(by_meaning)));
    for (path, by_text, by_meaning) in [
        ("7/sd", Some(5_000), Some(5_000)),
        ("7/hd", Some(20_000), Some(20_000)),
        ("7/%68d", Some(20_000), Some(20_000)),
        ("7/h%64?/sd", Some(20_000), Some(20_000)),
        ("%37/%73d", Some(20_000), Some(5_000)),
        ("7/HD", Some(20_000), None),
        ("7/hd%2Fsd", Some(20_000), None),
        ("7/hd/", None, None),
        ("7/hd/sd", None, None),
        ("7//sd", None, None),
    ] {
        for (way, msat) in [("text", by_text), ("meaning", by_meaning)] {
            let request = Request::get(format!("/{way}/{path}")).body(axum::body::Body::empty()).unwrap();
            let response = tower::ServiceExt::oneshot(app.clone(), request).await.unwrap();
            let status = if msat.is_some() { 402 } else { 404 };
            assert_eq!(response.status(), status, "{way} {path}");
            assert_eq!(msat.map(|_| amount_msat(&response)), msat, "{way} {path}");
        }
    }
}

#[tokio::test]
async fn no_path_writes_a_caveat() {
    let clock = FixedClock::at(NOW);
    let wallet = DevBackend::with_clock(clock.clone());
    let path = |head: &Parts| Some(head.uri.path().to_owned());
    let issuer = Issuer::builder(KeyRing::new(RootKey::generate()), wallet.clone())
        .with_network(Network::Regtest)
        .with_clock(clock)
        .with_caveats(CaveatRegistry::new().bind("document", path))
        .build()
        .unwrap();
    let gate = Gate::new(&issuer, "docs", Offer::new(Price::sat(1), Access::pass(HOUR))).unwrap();
    let expected = {
        let mut head = Request::get("/plain").body(()).unwrap().into_parts().0;
        let refused = gate.admit(&mut head).await.unwrap_err();
        let challenge: Challenge = refused.headers()[WWW_AUTHENTICATE].to_str().unwrap().parse().unwrap();
        challenge.token().caveats().len()
    };
    for path in
        ["/a=b", "/x,services=other:9", "/%0aservices=other:9", "/docs_valid_until=9999999999", "/a;b:c\"d"]
    {
        let ask = || Request::get(path).body(()).unwrap().into_parts().0;
        let refused = gate.admit(&mut ask()).await.unwrap_err();
        let challenge: Challenge = refused.headers()[WWW_AUTHENTICATE].to_str().unwrap().parse().unwrap();
        let caveats: Vec<_> = challenge.token().caveats().collect();
        assert_eq!(caveats.len(), expected, "{path}");
        assert_eq!(*caveats.last().unwrap(), format!("document={path}").as_bytes(), "{path}");
        let preimage = wallet.pay(challenge.invoice()).unwrap();
        let credential = challenge.token().credential(&preimage);
        let mut head = ask();
        head.headers.insert("authorization", credential.clone());
        assert!(gate.admit(&mut head).await.is_ok(), "{path}");
        let refused = present(&gate, Some(&credential)).await.unwrap_err();
        assert_eq!(code(&refused), Some("condition_failed"), "{path}");
    }
}

/// A source of rates that a test turns.
struct Bank {
    per_bitcoin: AtomicU64,
    asked: AtomicUsize,
}

impl Bank {
    fn at(per_bitcoin: u64) -> Arc<Self> {
        Arc::new(Self { per_bitcoin: AtomicU64::new(per_bitcoin), asked: AtomicUsize::new(0) })
    }

    /// 0 for a bank that is closed.
    fn set(&self, per_bitcoin: u64) {
        self.per_bitcoin.store(per_bitcoin, Ordering::SeqCst);
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

struct Teller(Arc<Bank>);

#[async_trait]
impl RateSource for Teller {
    async fn rate(
        &self,
        currency: Currency,
    ) -> Result<ExchangeRate, Box<dyn std::error::Error + Send + Sync>> {
        self.0.asked.fetch_add(1, Ordering::SeqCst);
        match self.0.per_bitcoin.load(Ordering::SeqCst) {
            _ if currency != USD => Err("the bank knows dollars alone".into()),
            0 => Err("the bank is closed".into()),
            per_bitcoin => Ok(ExchangeRate::per_bitcoin(per_bitcoin)?),
        }
    }
}

/// A shop with rates that last 10 minutes.
fn shop(bank: &Arc<Bank>) -> Shop {
    shop_with(|issuer| issuer.with_rates(10 * MINUTE, Teller(bank.clone())))
}

fn shop_with(configure: impl FnOnce(IssuerBuilder) -> IssuerBuilder) -> Shop {
    let clock = FixedClock::at(NOW);
    let wallet = DevBackend::with_clock(clock.clone());
    let ledger: Arc<dyn l402::Ledger> = Arc::new(MemoryLedger::new());
    let builder = Issuer::builder(KeyRing::new(RootKey::new([7; 32]).unwrap()), wallet.clone())
        .with_network(Network::Regtest)
        .with_ledger(ledger.clone())
        .with_clock(clock.clone());
    let issuer = configure(builder).build().unwrap();
    Shop { clock, wallet, ledger, issuer }
}

#[tokio::test]
async fn a_price_in_cents_is_sold_in_msat_rounded_up() {
    let bank = Bank::at(6_543_210);
    let shop = shop(&bank);
    let gate =
        Gate::new(&shop.issuer, "news", Offer::new(Price::minor(50, USD), Access::pass(HOUR))).unwrap();
    let refused = present(&gate, None).await.unwrap_err();
    assert_eq!(amount_msat(&refused), 764_151, "50 cents at 65,432.10 dollars are 764,150.93 msat");
    let paid = shop.pay(&refused);
    let body: serde_json::Value = serde_json::from_slice(&refused.into_body()).expect("the body is JSON");
    let offer = &body["l402"]["offers"][0];
    assert_eq!((&offer["price_minor"], &offer["currency"]), (&50.into(), &"USD".into()));
    assert_eq!(offer["price_msat"], 764_151);

    // What was sold stays sold, and no rate is read for it.
    bank.set(0);
    shop.clock.advance(30 * MINUTE);
    assert_eq!(present(&gate, Some(&paid.credential())).await.unwrap(), Basis::Preimage);
    assert_eq!(bank.asked(), 1);
}

#[tokio::test]
async fn a_price_by_the_request_is_compared_in_the_sellers_unit() {
    let bank = Bank::at(10_000_000);
    let shop = shop(&bank);
    let hd = |head: &Parts| Ok(Price::minor(if head.uri.path() == "/hd" { 25 } else { 10 }, USD));
    let gate = Gate::new(&shop.issuer, "video", Offer::priced(hd, Access::uses(9))).unwrap();
    let at = |path: &str, credential: &HeaderValue| {
        Request::get(path).header("authorization", credential).body(()).unwrap().into_parts().0
    };
    let paid = Paid::buy(&shop, &gate).await;
    let caveats: Vec<_> =
        paid.token.caveats().map(|text| String::from_utf8(text.to_vec()).unwrap()).collect();
    assert!(caveats.contains(&"video_max_price=10usd".to_owned()), "{caveats:?}");
    // Dearer in msat, as dear in cents.
    bank.set(1_000_000);
    shop.clock.advance(11 * MINUTE);
    assert!(gate.admit(&mut at("/", &paid.credential())).await.is_ok());
    assert_eq!(bank.asked(), 1);
    let refused = gate.admit(&mut at("/hd", &paid.credential())).await.unwrap_err();
    assert_eq!((code(&refused), amount_msat(&refused)), (Some("price_too_high"), 2_500_000));
}

#[tokio::test]
async fn a_token_sold_in_one_unit_opens_nothing_priced_in_another() {
    let shop = shop(&Bank::at(10_000_000));
    let unit = Arc::new(Mutex::new(Price::minor(10, USD)));
    let now = unit.clone();
    let gate =
        Gate::new(&shop.issuer, "video", Offer::priced(move |_| Ok(*now.lock().unwrap()), Access::uses(9)))
            .unwrap();
    let paid = Paid::buy(&shop, &gate).await;
    for (price, expected) in [(Price::msat(1), "price_too_high"), (Price::minor(1, EUR), "price_unavailable")]
    {
        *unit.lock().unwrap() = price;
        let refused = present(&gate, Some(&paid.credential())).await.unwrap_err();
        assert_eq!(code(&refused), Some(expected));
    }
}

#[tokio::test]
async fn a_rate_is_asked_at_half_its_age_and_refused_past_it() {
    let bank = Bank::at(10_000_000);
    let shop = shop(&bank);
    let gate = Gate::new(&shop.issuer, "news", Offer::new(Price::minor(1, USD), Access::pass(HOUR))).unwrap();
    // Seconds that pass, what the bank says from then on, and what is sold or not.
    for (seconds, per_bitcoin, sold, asked) in [
        (0, 10_000_000, Some(10_000), 1),
        (300, 20_000_000, Some(10_000), 1),
        (1, 20_000_000, Some(5_000), 2),
        (301, 0, Some(5_000), 3),
        (1, 0, Some(5_000), 3),
        (4, 0, Some(5_000), 4),
        (294, 0, Some(5_000), 5),
        (1, 0, None, 5),
        (4, 0, None, 6),
        (1, 50_000_000, None, 6),
        (4, 50_000_000, Some(2_000), 7),
    ] {
        shop.clock.advance(Duration::from_secs(seconds));
        bank.set(per_bitcoin);
        let refused = present(&gate, None).await.unwrap_err();
        assert_eq!(bank.asked(), asked, "{seconds} {per_bitcoin}");
        if let Some(msat) = sold {
            assert_eq!(amount_msat(&refused), msat);
        } else {
            assert_eq!(outcome(&refused), (503, Some("price_unavailable")));
            assert!(refused.headers().contains_key(RETRY_AFTER));
        }
    }
}

/// What no invoice can be for is not sold, and what comes to less than 1 msat
/// costs that.
#[tokio::test]
async fn a_rate_that_is_far_off_sells_nothing_for_nothing() {
    for (cents, per_bitcoin, msat) in [
        (1, u64::MAX, Ok(1)),
        (u64::MAX, u64::MAX, Ok(100_000_000_000)),
        (1_000_000, 1, Ok(100_000_000_000_000_000)),
        (21_000_001, 1, Err("price_failed")),
        (u64::MAX, 1, Err("price_failed")),
        (1, 0, Err("price_unavailable")),
    ] {
        let shop = shop(&Bank::at(per_bitcoin));
        let offer = Offer::new(Price::minor(cents, USD), Access::pass(HOUR));
        let refused = present(&Gate::new(&shop.issuer, "news", offer).unwrap(), None).await.unwrap_err();
        let sold = match code(&refused) {
            Some("missing_credential") => Ok(amount_msat(&refused)),
            code => Err(code.unwrap()),
        };
        assert_eq!(sold, msat, "{cents} at {per_bitcoin}");
    }
}

/// A source whose first answer is a rate, and which never answers again.
#[tokio::test(start_paused = true)]
async fn a_source_that_hangs_stops_no_sale_while_the_last_rate_is_good() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let shop = shop_with(|issuer| {
        issuer.with_rates(10 * MINUTE, move |_| {
            let first = count.fetch_add(1, Ordering::SeqCst) == 0;
            async move {
                if !first {
                    pending::<()>().await;
                }
                Ok(ExchangeRate::per_bitcoin(10_000_000)?)
            }
        })
    });
    let gate = Gate::new(&shop.issuer, "news", Offer::new(Price::minor(1, USD), Access::pass(HOUR))).unwrap();
    assert_eq!(amount_msat(&present(&gate, None).await.unwrap_err()), 10_000);
    shop.clock.advance(Duration::from_secs(301));
    let began = tokio::time::Instant::now();
    let (a, b, c) = tokio::join!(present(&gate, None), present(&gate, None), present(&gate, None));
    for refused in [a, b, c] {
        assert_eq!(amount_msat(&refused.unwrap_err()), 10_000);
    }
    assert_eq!((asked.load(Ordering::SeqCst), began.elapsed().as_secs()), (2, 5), "one waited for all");
}

#[tokio::test(start_paused = true)]
async fn a_source_that_hangs_or_panics_is_an_outage() {
    type Answer = Result<ExchangeRate, Box<dyn std::error::Error + Send + Sync>>;
    let hangs = shop_with(|issuer| issuer.with_rates(MINUTE, |_| pending::<Answer>()));
    let panics = shop_with(|issuer| {
        issuer
            .with_rates(MINUTE, |_| async move { if true { panic!("no") } else { Answer::Err("no".into()) } })
    });
    for shop in [hangs, panics] {
        let offer = Offer::new(Price::minor(1, USD), Access::pass(HOUR));
        let gate = Gate::new(&shop.issuer, "news", offer).unwrap();
        let began = tokio::time::Instant::now();
        let refused = present(&gate, None).await.unwrap_err();
        assert_eq!(outcome(&refused), (503, Some("price_unavailable")));
        assert!(began.elapsed() <= Duration::from_secs(5));
    }
}

#[tokio::test]
async fn a_price_in_another_currency_needs_rates() {
    let shop = Shop::new();
    let error =
        Gate::new(&shop.issuer, "news", Offer::new(Price::minor(1, USD), Access::pass(HOUR))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Offer);
    assert!(error.to_string().contains("with_rates"), "{error}");
    let offer = Offer::priced(|_| Ok(Price::minor(1, USD)), Access::pass(HOUR));
    let refused = present(&Gate::new(&shop.issuer, "news", offer).unwrap(), None).await.unwrap_err();
    assert_eq!(outcome(&refused), (500, Some("price_failed")));
}
