//! Whatever a server asks, the paying client pays for no less than what it
//! shall: each reason not to pay, with nothing paid and no token sent.

#![allow(missing_docs)]

#[path = "support/bolt11.rs"]
mod bolt11;
#[path = "support/script.rs"]
mod script;
#[path = "support/wire.rs"]
mod wire;

use std::time::Duration;

use bolt11::is_payment_hash;
use http::Request;
use l402::Network;
use l402::client::{Body, Budget, Client, Error, ErrorKind, L402ClientLayer, Limit, PayErrorKind, Payer};
use lightning_invoice::Currency;
use script::{Asking, Outcome, Scripted, challenge, invoice, token};
use tower::{Layer as _, Service as _};
use wire::{NOW, Server, Shop, serve};

struct Market {
    shop: Shop,
    asking: Asking,
    server: Server,
    wallet: Scripted,
}

impl Market {
    async fn new(script: impl IntoIterator<Item = Outcome>) -> Self {
        let (shop, asking) = (Shop::new(), Asking::default());
        let server = serve(asking.router()).await;
        let wallet = Scripted::new(&shop.wallet, script);
        Self { shop, asking, server, wallet }
    }

    fn payer(&self) -> Payer {
        Payer::new(self.wallet.clone()).with_clock(self.shop.clock.clone())
    }

    fn url(&self) -> String {
        format!("http://{}/a?secret", self.server.address)
    }

    async fn refused(&self, payer: Payer) -> Error {
        Client::new(payer).get(self.url()).await.unwrap_err()
    }

    /// Nothing was paid, reserved or kept, and no token was sent.
    async fn is_untouched(&self, payer: &Payer, what: &str) {
        assert_eq!(self.wallet.asked().len(), 0, "{what}");
        assert_eq!(payer.spent().await.unwrap().total_msat, 0, "{what}");
        assert!(self.asking.seen.lock().unwrap().iter().all(Vec::is_empty), "{what}");
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_challenge_is_refused_before_anything_is_paid() {
    let market = Market::new([]).await;
    let good = || invoice(1, 21_000);
    let opaque = |invoice: String| vec![challenge("opaque", &invoice)];
    let mut of_mainnet = good();
    of_mainnet.currency = Currency::Bitcoin;
    let mut no_amount = good();
    no_amount.amount_msat = None;
    let mut expired = good();
    expired.timestamp = NOW - 300;
    let mut about_to = good();
    about_to.expiry = Duration::from_secs(9);
    let mut no_hash = good();
    no_hash.edit = |fields| fields.retain(|field| !is_payment_hash(field));
    let altered = good().text().replace("lnbcrt210n", "lnbcrt110n");
    for (what, lines, kind) in [
        ("none", vec![], ErrorKind::NoChallenge),
        ("another scheme", vec!["Bearer realm=x".into()], ErrorKind::NoChallenge),
        ("no invoice", vec![r#"L402 token="abc""#.into()], ErrorKind::NoChallenge),
        ("a token with a comma", vec![challenge("a,b", &good().text())], ErrorKind::NoChallenge),
        ("no BOLT 11", opaque("lnbcrt1".into()), ErrorKind::Invoice),
        ("an amount that was altered", opaque(altered), ErrorKind::Invoice),
        ("no payment hash", opaque(no_hash.text()), ErrorKind::Invoice),
        ("no amount", opaque(no_amount.text()), ErrorKind::NoAmount),
        ("another network", opaque(of_mainnet.text()), ErrorKind::Network),
        ("expired", opaque(expired.text()), ErrorKind::Expired),
        ("about to expire", opaque(about_to.text()), ErrorKind::Expired),
        (
            "another token's",
            vec![challenge(&token(2, &["services=a:0"]), &good().text())],
            ErrorKind::PaymentHash,
        ),
        ("too much", opaque(invoice(1, 100_001).text()), ErrorKind::OverBudget(Limit::Request)),
        (
            "all the bitcoin there is",
            opaque(invoice(1, 1_800_000_000_000_000_000).text()),
            ErrorKind::OverBudget(Limit::Request),
        ),
    ] {
        market.asking.asks(lines);
        let payer = market.payer();
        let error = market.refused(payer.clone()).await;
        assert_eq!(error.kind(), kind, "{what}: {error}");
        assert!(error.receipt().is_none(), "{what}");
        market.is_untouched(&payer, what).await;
    }
}

#[tokio::test]
async fn of_several_challenges_the_first_that_may_be_paid_is() {
    let market = Market::new([]).await;
    market.asking.asks([
        challenge("one", &invoice(1, 200_000).text()),
        challenge("two", &invoice(2, 21_000).text()),
        challenge("three", &invoice(3, 1_000).text()),
    ]);
    market.asking.opens("two");
    let answer = Client::new(market.payer()).get(market.url()).await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(market.wallet.payments(), 1);
    assert_eq!(market.wallet.asked()[0].amount_msat, 21_000);
}

#[tokio::test]
async fn what_the_payer_was_told_is_kept_to() {
    let market = Market::new([]).await;
    market.asking.asks([challenge(&token(1, &["services=a:0,b:1"]), &invoice(1, 21_000).text())]);
    let budget = Budget::default;
    for (what, payer, kind) in [
        (
            "request",
            market.payer().with_budget(budget().with_request_sat(20)),
            ErrorKind::OverBudget(Limit::Request),
        ),
        (
            "origin",
            market.payer().with_budget(budget().with_origin_sat(20)),
            ErrorKind::OverBudget(Limit::Origin),
        ),
        ("hour", market.payer().with_budget(budget().with_hour_sat(20)), ErrorKind::OverBudget(Limit::Hour)),
        ("day", market.payer().with_budget(budget().with_day_sat(20)), ErrorKind::OverBudget(Limit::Day)),
        (
            "total",
            market.payer().with_budget(budget().with_total_sat(20)),
            ErrorKind::OverBudget(Limit::Total),
        ),
        ("origins", market.payer().allow_origin("https://api.example").unwrap(), ErrorKind::OriginNotAllowed),
        ("confirmation", market.payer().with_confirmation(|_| false), ErrorKind::NotConfirmed),
        (
            "a confirmation that panics",
            market.payer().with_confirmation(|_| panic!("as told")),
            ErrorKind::NotConfirmed,
        ),
        ("dry run", market.payer().dry_run(), ErrorKind::DryRun),
    ] {
        let error = market.refused(payer.clone()).await;
        assert_eq!(error.kind(), kind, "{what}: {error}");
        assert!(!format!("{error} {error:?}").contains("secret"), "{what}: {error:?}");
        market.is_untouched(&payer, what).await;
    }
    let error = Client::new(market.payer()).pay(market.url(), 20_999).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OverBudget(Limit::Request));

    let quote = market.refused(market.payer().dry_run()).await.quote().cloned().unwrap();
    assert_eq!(quote.origin, format!("http://{}", market.server.address));
    assert_eq!((&*quote.path, quote.amount_msat, quote.max_fee_msat), ("/a", 21_000, 5_210));
    assert_eq!((quote.services, quote.offered_msat), (vec!["a".to_owned(), "b".to_owned()], vec![21_000]));
    assert_eq!(&*quote.body.unwrap(), b"{}");
}

#[tokio::test]
async fn an_invoice_that_expires_while_a_person_thinks_is_not_paid() {
    let market = Market::new([]).await;
    market.asking.asks([challenge("opaque", &invoice(1, 21_000).text())]);
    let clock = market.shop.clock.clone();
    let payer = market.payer().with_confirmation(move |_| {
        clock.advance(Duration::from_secs(295));
        true
    });
    assert_eq!(market.refused(payer.clone()).await.kind(), ErrorKind::Expired);
    market.is_untouched(&payer, "thinking").await;
}

#[tokio::test]
async fn a_wallet_that_cannot_limit_fees_needs_room_for_them() {
    let market = Market::new([Outcome::Costs(300)]).await;
    market.asking.asks([challenge("opaque", &invoice(1, 21_000).text())]);
    market.asking.opens("opaque");
    let payer =
        || Payer::new(market.wallet.clone().without_fee_limits()).with_clock(market.shop.clock.clone());
    let error = Client::new(payer()).pay(market.url(), 26_000).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OverBudget(Limit::Request));
    let paid = Client::new(payer()).pay(market.url(), 26_210).await.unwrap();
    assert_eq!(paid.receipt.unwrap().cost_msat(), 21_300);
    assert_eq!(market.wallet.asked()[0].max_fee_msat, 5_210);
}

#[tokio::test]
async fn a_fee_goes_no_higher_than_what_is_left() {
    let market = Market::new([]).await;
    market.asking.asks([challenge("opaque", &invoice(1, 21_000).text())]);
    market.asking.opens("opaque");
    let client = Client::new(market.payer().with_budget(Budget::default().with_total_sat(23)));
    client.pay(market.url(), 22_000).await.unwrap();
    assert_eq!(market.wallet.asked()[0].max_fee_msat, 1_000);

    let market = Market::new([]).await;
    market.asking.asks([challenge("opaque", &invoice(1, 21_000).text())]);
    market.asking.opens("opaque");
    let client = Client::new(market.payer().with_budget(Budget::default().with_total_sat(23)));
    client.get(market.url()).await.unwrap();
    assert_eq!(market.wallet.asked()[0].max_fee_msat, 2_000);
}

#[tokio::test]
async fn another_network_than_the_wallets_is_not_paid() {
    let market = Market::new([]).await;
    market.asking.asks([challenge("opaque", &invoice(1, 21_000).text())]);
    let payer =
        Payer::new(market.wallet.clone().of_network(Network::Bitcoin)).with_clock(market.shop.clock.clone());
    let error = market.refused(payer.clone()).await;
    assert_eq!(error.kind(), ErrorKind::Network);
    assert!(error.to_string().contains("bitcoin"), "{error}");
    market.is_untouched(&payer, "network").await;
}

#[tokio::test]
async fn a_server_that_asks_again_after_a_payment_is_paid_once() {
    let market = Market::new([]).await;
    market.asking.asks([challenge("one", &invoice(1, 21_000).text())]);
    let client = Client::new(market.payer());
    let error = client.get(market.url()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PaidAgain);
    assert_eq!(error.receipt().unwrap().amount_msat, 21_000);
    assert_eq!(market.wallet.payments(), 1);
    // The token is refused a second time, and the same invoice is not paid for it.
    assert_eq!(client.get(market.url()).await.unwrap_err().kind(), ErrorKind::InvoiceUsed);
    assert_eq!(market.wallet.payments(), 1);
    assert_eq!(client.payer().spent().await.unwrap().total_msat, 21_000);
}

#[tokio::test]
async fn an_invoice_that_was_used_is_not_paid_for_another_token() {
    let market = Market::new([]).await;
    market.asking.asks([challenge("one", &invoice(1, 21_000).text())]);
    market.asking.opens("one");
    let client = Client::new(market.payer());
    client.get(market.url()).await.unwrap();
    market.asking.asks([challenge("two", &invoice(1, 21_000).text())]);
    market.asking.opens("two");
    let other = format!("http://{}/other", market.server.address);
    assert_eq!(client.get(other).await.unwrap_err().kind(), ErrorKind::InvoiceUsed);
    assert_eq!(market.wallet.asked().len(), 1);
}

#[tokio::test]
async fn no_token_goes_to_another_origin() {
    let market = Market::new([]).await;
    market.asking.asks([challenge("one", &invoice(1, 21_000).text())]);
    market.asking.opens("one");
    let client = Client::new(market.payer());
    client.get(market.url()).await.unwrap();
    let other = Asking::default();
    let server = serve(other.router()).await;
    other.asks([challenge("one", &invoice(2, 200_000).text())]);
    for host in ["127.0.0.1", "localhost"] {
        let url = format!("http://{host}:{}/a", server.address.port());
        assert_eq!(client.get(url).await.unwrap_err().kind(), ErrorKind::OverBudget(Limit::Request));
    }
    // The same server by another name is another origin.
    let url = format!("http://localhost:{}/a", market.server.address.port());
    market.asking.asks([]);
    assert_eq!(client.get(url).await.unwrap_err().kind(), ErrorKind::NoChallenge);
    assert!(other.seen.lock().unwrap().iter().all(Vec::is_empty));
    assert!(market.asking.seen.lock().unwrap().last().unwrap().is_empty());
}

/// A service beneath the layer, without a socket: as one that reaches anywhere.
fn asks(
    line: String,
) -> impl tower::Service<
    Request<Body>,
    Response = http::Response<()>,
    Error = std::convert::Infallible,
    Future = impl Future<Output = Result<http::Response<()>, std::convert::Infallible>> + Send + 'static,
> + Clone
+ Send
+ 'static {
    tower::service_fn(move |request: Request<Body>| {
        let line = line.clone();
        async move {
            // It reads what it is sent, as a server may.
            let _ = http_body_util::BodyExt::collect(request.into_body()).await;
            Ok(http::Response::builder().status(402).header("www-authenticate", line).body(()).unwrap())
        }
    })
}

#[tokio::test]
async fn plain_http_beyond_this_machine_and_requests_of_no_origin_are_not_paid() {
    let market = Market::new([]).await;
    let service = asks(challenge("opaque", &invoice(1, 21_000).text()));
    let layer = L402ClientLayer::new(market.payer());
    let named = layer.clone().with_origin("https://api.example").unwrap();
    for (layer, url, kind) in [
        (layer.clone(), "http://api.example/a", ErrorKind::PlainHttp),
        (layer.clone(), "http://10.0.0.1/a", ErrorKind::PlainHttp),
        (layer.clone(), "/a", ErrorKind::Origin),
        (layer.clone(), "https://user@api.example/a", ErrorKind::Origin),
        (named.clone(), "https://other.example/a", ErrorKind::Origin),
        (named.clone(), "https://user@api.example/a", ErrorKind::Origin),
        (named.clone(), "https://api.example:x/a", ErrorKind::Origin),
        (named.clone(), "ftp://api.example/a", ErrorKind::Origin),
        (layer.clone().with_origin("http://api.example").unwrap(), "/a", ErrorKind::PlainHttp),
        // It pays, and is asked again.
        (named, "/a", ErrorKind::PaidAgain),
    ] {
        let request = Request::get(url).body(Body::default()).unwrap();
        let error = layer.layer(service.clone()).call(request).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{url}: {error}");
        assert_eq!(market.wallet.payments(), usize::from(kind == ErrorKind::PaidAgain), "{url}");
    }
}

#[tokio::test]
async fn a_body_that_is_gone_is_not_paid_for() {
    let market = Market::new([]).await;
    let service = asks(challenge("opaque", &invoice(1, 21_000).text()));
    for (limit, kind) in [(7, ErrorKind::Body), (8, ErrorKind::PaidAgain)] {
        let frames =
            ["four", "four"].map(|text| Ok::<_, std::io::Error>(hyper::body::Frame::data(text.into())));
        let body = Body::new(http_body_util::StreamBody::new(tokio_stream::iter(frames)));
        let request = Request::post("https://api.example/a").body(body).unwrap();
        let layer = L402ClientLayer::new(market.payer().with_replay_limit(limit));
        let error = layer.layer(service.clone()).call(request).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert_eq!(market.wallet.payments(), usize::from(kind == ErrorKind::PaidAgain));
    }
}

#[tokio::test]
async fn a_payment_that_failed_for_good_is_free_again() {
    for kind in [PayErrorKind::Failed, PayErrorKind::NotSent] {
        let market = Market::new([Outcome::Fails(kind)]).await;
        market.asking.asks([challenge("opaque", &invoice(1, 21_000).text())]);
        market.asking.opens("opaque");
        let client = Client::new(market.payer());
        let error = client.get(market.url()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PaymentFailed);
        assert!(std::error::Error::source(&error).is_some());
        assert_eq!(client.payer().spent().await.unwrap().total_msat, 0);
        assert_eq!(client.get(market.url()).await.unwrap().status(), 200);
    }
}

#[tokio::test]
async fn a_payment_without_its_preimage_counts_and_says_what_to_do() {
    for (outcome, kind, cost) in [
        (Outcome::PaysThen(PayErrorKind::NoPreimage), ErrorKind::NoPreimage, 26_210),
        (Outcome::Lies, ErrorKind::Preimage, 21_000),
    ] {
        let market = Market::new([outcome]).await;
        market.asking.asks([challenge("opaque", &invoice(1, 21_000).text())]);
        let client = Client::new(market.payer());
        let error = client.get(market.url()).await.unwrap_err();
        assert_eq!(error.kind(), kind);
        let hash = script::preimage(1).payment_hash().to_string();
        assert!(error.to_string().contains(&hash) && error.to_string().contains("in the wallet"), "{error}");
        assert_eq!(error.receipt().unwrap().cost_msat(), cost);
        assert_eq!(client.payer().spent().await.unwrap().total_msat, cost);
        assert!(market.asking.seen.lock().unwrap().iter().all(Vec::is_empty), "no token is sent");
    }
}
