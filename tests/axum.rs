//! A gate before an axum route, over HTTP/1.1 and HTTP/2.

#![allow(missing_docs)]

#[path = "support/sockets.rs"]
mod sockets;
#[path = "support/wire.rs"]
mod wire;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use l402::{Access, Gate, Grant, L402Layer, Offer, Price};
use sockets::{BOTH, is_gated};
use wire::{Shop, serve};

#[tokio::test]
async fn a_route_is_gated() {
    let shop = Shop::new();
    let gate = Gate::new(&shop.issuer, "api", Offer::new(Price::sat(2), Access::uses(3))).unwrap();
    let layer = L402Layer::new(gate);
    let calls = Arc::new(AtomicUsize::new(0));
    let (paid, broken) = (calls.clone(), calls.clone());
    let paid = async move |grant: Grant| {
        paid.fetch_add(1, Ordering::SeqCst);
        format!("{} left", grant.remaining().unwrap())
    };
    let broken = async move || {
        broken.fetch_add(1, Ordering::SeqCst);
        StatusCode::INTERNAL_SERVER_ERROR
    };
    let app = Router::new()
        .route("/paid", get(paid).route_layer(layer.clone()))
        .route("/broken", get(broken).route_layer(layer));
    let server = serve(app).await;
    for http in BOTH {
        let account = is_gated(server.address, http, &shop.wallet).await;
        assert_eq!(shop.issuer.account(account).await.unwrap().unwrap().used, 3);
    }
    assert_eq!(calls.load(Ordering::SeqCst), 2 * 4, "three uses and one that was given back");
}
