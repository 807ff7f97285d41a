//! A wallet with Nostr Wallet Connect, over a relay in process: the gate sells,
//! the wallet is paid, and whatever relay or wallet do wrong stays an error of
//! the kind that fits.

#![cfg(feature = "nwc")]

mod support {
    pub mod nwc;
    pub mod wire;
}

use std::sync::Arc;

use axum::Router;
use axum::routing::get;
use l402::{Access, Gate, HOUR, Issuer, KeyRing, L402Layer, Network, Offer, PaymentBackend, Price, RootKey};

use support::nwc::{Relay, Wallet};
use support::wire::serve;

#[tokio::test]
async fn a_wallet_keeps_the_contract_of_a_backend() {
    let relay = Relay::start().await;
    let wallet = Wallet::start(&relay).await;
    let backend: Arc<dyn PaymentBackend> = Arc::new(wallet.backend());
    l402::conformance::backend::check(backend.clone()).await;
    l402::conformance::backend::check_settlement(backend, async |bolt11: String| {
        wallet.node.pay(&bolt11).unwrap();
    })
    .await;
    assert_eq!(relay.connected(), 2, "the wallet's connection, and one for every call");
}

#[tokio::test]
async fn a_gate_sells_through_a_wallet_and_asks_it_whether_it_was_paid() {
    let relay = Relay::start().await;
    let wallet = Wallet::start(&relay).await;
    let issuer = Issuer::builder(KeyRing::new(RootKey::generate()), wallet.backend())
        .with_network(Network::Regtest)
        .build()
        .unwrap();
    let gate = Gate::new(&issuer, "forecast", Offer::new(Price::msat(20_500), Access::pass(HOUR))).unwrap();
    let app = Router::new().route("/", get(|| async { "sunny" }).route_layer(L402Layer::new(gate)));
    let server = serve(app).await;

    let answer = server.get("/", &[]).await;
    assert_eq!(answer.status, 402);
    let challenge = answer.challenge();
    let invoice: lightning_invoice::Bolt11Invoice = challenge.invoice().parse().unwrap();
    assert_eq!(invoice.amount_milli_satoshis(), Some(21_000), "whole satoshis, rounded up");

    let preimage = wallet.node.pay(challenge.invoice()).unwrap();
    let credential = challenge.token().credential(&preimage);
    let line = format!("Authorization: {}", credential.to_str().unwrap());
    for _ in 0..3 {
        let answer = server.get("/", &[&line]).await;
        assert_eq!((answer.status, answer.text()), (200, "sunny"));
    }
    let methods: Vec<_> = wallet.calls().into_iter().map(|(_, call)| call["method"].clone()).collect();
    assert_eq!(methods, ["make_invoice", "lookup_invoice"], "asked once about the token");
}
