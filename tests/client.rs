//! The paying client against our own server, over sockets: what it pays, and
//! what it does not pay twice.

#![allow(missing_docs)]

#[path = "support/wire.rs"]
mod wire;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::routing::get;
use l402::client::{Client, Payer};
use l402::{Access, DAY, Gate, Grant, L402Layer, Offer, Price};
use wire::{Server, Shop, serve};

async fn forecast(grant: Grant) -> String {
    format!("sunny; {:?} left", grant.remaining())
}

fn gate(shop: &Shop, service: &str, access: Access) -> L402Layer {
    L402Layer::new(Gate::new(&shop.issuer, service, Offer::new(Price::sat(21), access)).unwrap())
}

fn payer(shop: &Shop) -> Payer {
    Payer::new(shop.wallet.clone()).with_clock(shop.clock.clone())
}

fn url(server: &Server, path: &str) -> String {
    format!("http://{}{path}", server.address)
}

#[tokio::test]
async fn a_url_is_paid_for_once_and_the_token_used_again() {
    let shop = Shop::new();
    let app = Router::new()
        .route("/forecast", get(forecast))
        .route("/other", get(forecast))
        .route_layer(gate(&shop, "forecast", Access::uses(100).within(DAY)));
    let server = serve(app).await;
    let told = Arc::new(AtomicUsize::new(0));
    let tells = told.clone();
    let client = Client::new(payer(&shop).on_receipt(move |_| {
        tells.fetch_add(1, Ordering::SeqCst);
    }));

    let paid = client.pay(url(&server, "/forecast?a=b"), 21_000).await.unwrap();
    assert_eq!(
        (paid.response.status().as_u16(), &**paid.response.body()),
        (200, &b"sunny; Some(99) left"[..])
    );
    let receipt = paid.receipt.unwrap();
    assert_eq!((receipt.amount_msat, receipt.fee_msat, &*receipt.path), (21_000, 0, "/forecast"));
    assert_eq!(receipt.origin, format!("http://{}", server.address));
    assert!(receipt.scope.starts_with("services=forecast:0\n"), "{receipt:?}");

    for (path, left) in [("/forecast", 98), ("/other", 97), ("/other?x", 96)] {
        let paid = client.pay(url(&server, path), 0).await.unwrap();
        assert_eq!(&**paid.response.body(), format!("sunny; Some({left}) left").as_bytes(), "{path}");
        assert!(paid.receipt.is_none());
    }
    assert_eq!((shop.wallet.payments(), told.load(Ordering::SeqCst)), (1, 1));
    let receipts: Vec<_> = client.payer().receipts().await.unwrap().collect();
    assert_eq!(receipts, [receipt]);
    assert_eq!(client.payer().spent().await.unwrap().total_msat, 21_000);
}
