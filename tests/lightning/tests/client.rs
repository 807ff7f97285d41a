//! The paying client over the channel: `l402::client` with the payer's node as
//! its wallet.

mod support;

use std::sync::Arc;

use http::StatusCode;
use l402::client::{Budget, Client, ErrorKind, Limit, MemoryStore, Payer};
use l402::{Access, DAY};
use l402_lightning::{LdkWallet, lightning};
use support::Shop;

fn payer(store: &Arc<MemoryStore>) -> Payer {
    Payer::new(LdkWallet::new(lightning().payer.ldk.clone())).with_store(store.clone())
}

#[tokio::test]
async fn a_resource_is_paid_by_one_htlc_and_its_token_used_again() {
    let shop = Shop::open(Access::uses(5).within(DAY)).await;
    let store = Arc::new(MemoryStore::new());
    let client = Client::new(payer(&store));
    let paid = client.pay(shop.url(), 30_000).await.unwrap();
    assert_eq!(paid.response.status(), StatusCode::OK, "{:?}", paid.response.body());
    let receipt = paid.receipt.unwrap();
    assert_eq!((receipt.amount_msat, receipt.fee_msat), (21_000, 0), "the channel is direct");
    lightning().server.has_received(receipt.payment_hash).await;
    assert_eq!(lightning().server.payments(receipt.payment_hash), 1);

    // This process, and one that is started later on the same store.
    for client in [client, Client::new(payer(&store))] {
        let again = client.pay(shop.url(), 0).await.unwrap();
        assert_eq!((again.response.status(), again.receipt), (StatusCode::OK, None));
        assert_eq!(client.payer().spent().await.unwrap().total_msat, 21_000);
    }
    assert_eq!(shop.served(), 3);
}

#[tokio::test]
async fn a_token_for_one_request_is_bought_for_each() {
    let shop = Shop::open(Access::once()).await;
    let client = Client::new(payer(&Arc::new(MemoryStore::new())));
    for paid in 1..=3 {
        assert_eq!(client.get(shop.url()).await.unwrap().status(), StatusCode::OK);
        assert_eq!(client.payer().spent().await.unwrap().total_msat, 21_000 * paid);
    }
    assert_eq!(shop.served(), 3);
}

#[tokio::test]
async fn a_budget_for_two_pays_two_of_ten_at_once() {
    let shop = Shop::open(Access::once()).await;
    let budget = Budget::default().with_total_sat(2 * 21);
    let client = Client::new(payer(&Arc::new(MemoryStore::new())).with_budget(budget));
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..10 {
        let (client, url) = (client.clone(), shop.url());
        calls.spawn(async move { client.get(url).await.map(|_| ()).map_err(|error| error.kind()) });
    }
    let all = calls.join_all().await;
    assert_eq!(all.iter().filter(|answer| answer.is_ok()).count(), 2, "{all:?}");
    assert_eq!(all.iter().filter(|answer| **answer == Err(ErrorKind::OverBudget(Limit::Total))).count(), 8);
    assert_eq!(shop.served(), 2);
}
