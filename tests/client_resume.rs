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

use l402::client::{Client, ErrorKind, MemoryStore, PayErrorKind, Payer};
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
