//! Payments whose end was not seen: looked up, and never made twice.

#![allow(missing_docs)]

#[path = "support/bolt11.rs"]
mod bolt11;
#[path = "support/script.rs"]
mod script;
#[path = "support/wire.rs"]
mod wire;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use l402::client::{
    Budget, Client, ErrorKind, MemoryStore, PayError, PayErrorKind, Payer, Payment, PaymentRequest,
    PaymentStatus, TokenStore as _, Wallet,
};
use l402::{BackendError, Network, PaymentHash};
use script::{Asking, Outcome, Says, Scripted, challenge, invoice};
use wire::{Server, Shop, serve};

/// A server that sells `one` for invoice 1, at first, and a payer that can be
/// started again on the same store.
struct Market {
    shop: Shop,
    asking: Asking,
    server: Server,
    wallet: Scripted,
    store: Arc<MemoryStore>,
}

impl Market {
    async fn new(script: impl IntoIterator<Item = Outcome>) -> Self {
        let (shop, asking) = (Shop::new(), Asking::default());
        asking.asks([challenge("one", &invoice(1, 21_000).text())]);
        asking.opens("one");
        let server = serve(asking.router()).await;
        let wallet = Scripted::new(&shop.wallet, script);
        Self { shop, asking, server, wallet, store: Arc::new(MemoryStore::new()) }
    }

    /// The client of a process that was just started.
    fn client(&self) -> Client {
        let payer = Payer::new(self.wallet.clone()).with_clock(self.shop.clock.clone());
        Client::new(payer.with_store(self.store.clone()))
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.server.address)
    }

    /// By then nobody is at it any more that was when this is called.
    fn waits(&self) {
        self.shop.clock.advance(Duration::from_secs(75));
    }

    async fn kind(&self, client: &Client) -> ErrorKind {
        client.get(self.url("/a")).await.unwrap_err().kind()
    }

    /// Another invoice is asked for from now on.
    fn asks_anew(&self) {
        self.asking.asks([challenge("two", &invoice(2, 21_000).text())]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_wallet_that_was_too_slow_and_paid_is_paid_once() {
    for outcome in [Outcome::PaysThen(PayErrorKind::Uncertain), Outcome::Hangs] {
        for restarts in [false, true] {
            let market = Market::new([outcome]).await;
            let mut client = market.client();
            assert_eq!(market.kind(&client).await, ErrorKind::Uncertain);
            assert_eq!(client.payer().spent().await.unwrap().total_msat, 26_210, "it stays reserved");
            market.asks_anew();
            if restarts {
                client = market.client();
            }
            let paid = client.pay(market.url("/a"), 0).await.unwrap();
            assert_eq!((paid.response.status().as_u16(), paid.receipt), (200, None), "{outcome:?}");
            assert_eq!(client.get(market.url("/a")).await.unwrap().status(), 200);
            assert_eq!((market.wallet.payments(), market.wallet.asked().len()), (1, 1));
            assert_eq!(client.payer().spent().await.unwrap().total_msat, 21_000);
            assert_eq!(client.payer().receipts().await.unwrap().count(), 1);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn who_waits_too_long_for_another_request_gives_up() {
    let market = Market::new([Outcome::Hangs]).await;
    market.wallet.says(Says::Late(Duration::from_secs(20)));
    let client = market.client();
    let (one, other) = tokio::join!(client.get(market.url("/a")), client.get(market.url("/a")));
    let (one, other) = (one.unwrap_err(), other.unwrap_err());
    let mut kinds = [one.kind(), other.kind()];
    kinds.sort_by_key(|kind| *kind == ErrorKind::InFlight);
    assert_eq!(kinds, [ErrorKind::Uncertain, ErrorKind::InFlight], "{one}; {other}");
    assert!(
        [one, other].iter().any(|error| error
            .to_string()
            .ends_with("for 75 s, and nothing was paid for this one: ask again"))
    );
    assert_eq!(market.wallet.asked().len(), 1);
}

#[tokio::test]
async fn a_token_is_used_after_a_restart_without_being_asked_for() {
    let market = Market::new([]).await;
    market.client().get(market.url("/a?x")).await.unwrap();
    let asked = market.asking.requests();
    assert_eq!(market.client().get(market.url("/a?y")).await.unwrap().status(), 200);
    assert_eq!((market.asking.requests() - asked, market.wallet.payments()), (1, 1));
}

#[tokio::test]
async fn nothing_new_is_paid_while_a_payment_is_in_flight() {
    let market = Market::new([Outcome::Fails(PayErrorKind::Uncertain)]).await;
    let client = market.client();
    assert_eq!(market.kind(&client).await, ErrorKind::Uncertain);
    market.asks_anew();
    for (says, kind) in [(Says::InFlight, ErrorKind::InFlight), (Says::Nothing, ErrorKind::Wallet)] {
        market.wallet.says(says);
        for client in [&client, &market.client()] {
            assert_eq!(market.kind(client).await, kind);
        }
    }
    assert_eq!(market.wallet.asked().len(), 1);
    // It failed after all: what is asked for now is paid.
    market.wallet.says(Says::Failed);
    market.waits();
    market.asking.opens("two");
    assert_eq!(client.get(market.url("/a")).await.unwrap().status(), 200);
    let asked: Vec<_> = market.wallet.asked().iter().map(|payment| payment.payment_hash).collect();
    assert_eq!(asked, [1, 2].map(|n| script::preimage(n).payment_hash()));
    assert_eq!(client.payer().spent().await.unwrap().total_msat, 21_000);
}

#[tokio::test]
async fn a_payment_that_the_wallet_never_heard_of_is_made_by_its_own_invoice() {
    for outcome in [Outcome::Fails(PayErrorKind::Uncertain), Outcome::Panics] {
        let market = Market::new([outcome]).await;
        assert_eq!(market.kind(&market.client()).await, ErrorKind::Uncertain, "{outcome:?}");
        market.asks_anew();
        market.waits();
        let client = market.client();
        // Not for more than a call may cost, which is nothing here.
        assert!(client.pay(market.url("/a"), 0).await.is_err());
        let paid = client.pay(market.url("/a"), 30_000).await.unwrap();
        assert_eq!(paid.receipt.unwrap().payment_hash, script::preimage(1).payment_hash());
        let asked: Vec<_> = market.wallet.asked().iter().map(|payment| payment.payment_hash).collect();
        assert_eq!(asked, [script::preimage(1).payment_hash(); 2], "the same, so never twice");
        assert_eq!(market.wallet.payments(), 1);
    }
}

/// A wallet that tries several ways calls a payment failed between two of them,
/// and one that was not reached yet knows of none.
#[tokio::test]
async fn what_was_begun_a_moment_ago_may_still_be_made_whatever_the_wallet_says() {
    for says in [Says::Failed, Says::Unknown] {
        let market = Market::new([Outcome::Fails(PayErrorKind::Uncertain)]).await;
        assert_eq!(market.kind(&market.client()).await, ErrorKind::Uncertain);
        market.asks_anew();
        market.wallet.says(says);
        market.shop.clock.advance(Duration::from_secs(74));
        let error = market.client().get(market.url("/a")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InFlight, "{says:?}");
        assert!(error.to_string().ends_with("ask again in 1 s"), "{error}");
        assert_eq!(market.wallet.asked().len(), 1, "{says:?}");
        // It was not, and is paid by its own invoice.
        market.wallet.says(Says::Truth);
        market.shop.clock.advance(Duration::from_secs(1));
        assert_eq!(market.client().get(market.url("/a")).await.unwrap().status(), 200);
        assert_eq!(market.wallet.payments(), 1, "{says:?}");
    }
}

#[tokio::test]
async fn a_failure_to_pay_what_another_process_began_does_not_end_it() {
    for kind in [PayErrorKind::NotSent, PayErrorKind::Failed] {
        let market = Market::new([Outcome::Fails(PayErrorKind::Uncertain), Outcome::Fails(kind)]).await;
        assert_eq!(market.kind(&market.client()).await, ErrorKind::Uncertain);
        market.asks_anew();
        market.waits();
        let client = market.client();
        assert_eq!(market.kind(&client).await, ErrorKind::Uncertain, "{kind:?}");
        assert_eq!(client.payer().spent().await.unwrap().total_msat, 26_210, "{kind:?}");
        // It is begun anew each time that it is paid.
        assert_eq!(market.kind(&market.client()).await, ErrorKind::InFlight, "{kind:?}");
        market.waits();
        let paid = client.pay(market.url("/a"), 30_000).await.unwrap();
        assert_eq!(paid.receipt.unwrap().payment_hash, script::preimage(1).payment_hash());
        assert_eq!(market.wallet.payments(), 1);
    }
}

#[tokio::test]
async fn what_is_paid_late_counts_in_the_hour_in_which_it_is_paid() {
    let market = Market::new([Outcome::Fails(PayErrorKind::Uncertain)]).await;
    let mut long = invoice(1, 21_000);
    long.expiry = Duration::from_secs(2 * 3_600);
    market.asking.asks([challenge("one", &long.text())]);
    assert_eq!(market.kind(&market.client()).await, ErrorKind::Uncertain);
    market.shop.clock.advance(Duration::from_secs(3_700));
    let client = market.client();
    assert_eq!(client.get(market.url("/a")).await.unwrap().status(), 200);
    assert_eq!(client.payer().spent().await.unwrap().hour_msat, 21_000);
}

/// A wallet in whose payments somebody removes the purchase.
#[derive(Debug)]
struct Interrupted(Scripted, Arc<MemoryStore>);

#[async_trait]
impl Wallet for Interrupted {
    fn network(&self) -> Network {
        self.0.network()
    }

    fn limits_fees(&self) -> bool {
        true
    }

    async fn pay(&self, payment: &PaymentRequest) -> Result<Payment, PayError> {
        self.1.fail(payment.payment_hash).await.unwrap();
        self.0.pay(payment).await
    }

    async fn status(&self, payment_hash: PaymentHash) -> Result<PaymentStatus, BackendError> {
        self.0.status(payment_hash).await
    }
}

#[tokio::test]
async fn a_payment_whose_purchase_was_removed_meanwhile_is_written_all_the_same() {
    let market = Market::new([]).await;
    let wallet = Interrupted(market.wallet.clone(), market.store.clone());
    let (told, tells) = std::sync::mpsc::channel();
    let payer = Payer::new(wallet).with_clock(market.shop.clock.clone()).with_store(market.store.clone());
    let budget = Budget::default().with_total_sat(27);
    let client = Client::new(payer.with_budget(budget).on_receipt(move |_| told.send(()).unwrap()));
    assert_eq!(client.get(market.url("/a")).await.unwrap().status(), 200);
    assert_eq!(tells.try_iter().count(), 1);
    assert_eq!(client.payer().spent().await.unwrap().total_msat, 21_000);
    assert_eq!(client.payer().receipts().await.unwrap().count(), 1);
    assert_eq!(market.client().get(market.url("/a")).await.unwrap().status(), 200);
    assert_eq!(market.wallet.payments(), 1);
}

#[tokio::test]
async fn one_that_can_no_longer_be_paid_ends_with_its_invoice() {
    let market = Market::new([Outcome::Fails(PayErrorKind::Uncertain)]).await;
    let client = market.client();
    assert_eq!(market.kind(&client).await, ErrorKind::Uncertain);
    market.shop.clock.advance(Duration::from_secs(295));
    let mut anew = invoice(2, 21_000);
    anew.timestamp += 295;
    anew.expiry = Duration::from_secs(600);
    market.asking.asks([challenge("two", &anew.text())]);
    market.asking.opens("two");
    assert_eq!(market.kind(&client).await, ErrorKind::InFlight, "another process may be paying it");
    market.shop.clock.advance(Duration::from_secs(65));
    assert_eq!(client.get(market.url("/a")).await.unwrap().status(), 200);
    assert_eq!(market.wallet.payments(), 1);
    assert_eq!(client.payer().spent().await.unwrap().total_msat, 21_000);
}

#[tokio::test]
async fn one_for_another_path_is_left_to_its_own_request() {
    let market = Market::new([Outcome::Fails(PayErrorKind::Uncertain)]).await;
    let client = market.client();
    assert_eq!(market.kind(&client).await, ErrorKind::Uncertain);
    market.asks_anew();
    market.asking.opens("two");
    assert_eq!(client.get(market.url("/b")).await.unwrap().status(), 200);
    assert_eq!(market.wallet.payments(), 1);
    market.asking.opens("one");
    market.waits();
    assert_eq!(client.get(market.url("/a")).await.unwrap().status(), 200);
    assert_eq!(market.wallet.payments(), 2);
    assert_eq!(client.payer().spent().await.unwrap().total_msat, 42_000);
}

#[tokio::test]
async fn one_that_was_made_without_a_preimage_is_told_once() {
    let market = Market::new([Outcome::Fails(PayErrorKind::Uncertain)]).await;
    let client = market.client();
    assert_eq!(market.kind(&client).await, ErrorKind::Uncertain);
    market.wallet.says(Says::PaidNoPreimage);
    assert_eq!(market.kind(&client).await, ErrorKind::NoPreimage);
    assert_eq!(client.payer().spent().await.unwrap().total_msat, 26_210);
    market.wallet.says(Says::Truth);
    market.asks_anew();
    market.asking.opens("two");
    assert_eq!(client.get(market.url("/a")).await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_dry_run_pays_nothing_of_what_was_begun_either() {
    let market = Market::new([Outcome::Fails(PayErrorKind::Uncertain)]).await;
    assert_eq!(market.kind(&market.client()).await, ErrorKind::Uncertain);
    let client = Client::new(market.client().payer().clone().dry_run());
    assert_eq!(market.kind(&client).await, ErrorKind::DryRun);
    assert_eq!(market.wallet.asked().len(), 1);
}
