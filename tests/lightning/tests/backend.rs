//! The backend by itself, and the contract of a backend.

mod support;

use std::sync::Arc;

use l402::{Access, InvoiceState, PaymentBackend as _, conformance};
use l402_lightning::{LdkBackend, lightning};
use support::{Shop, hash, server};

#[tokio::test]
async fn look_up_tells_what_became_of_an_invoice() {
    let shop = Shop::open(Access::once()).await;
    let challenge = shop.ask(None).await.challenge();
    let hash = hash(&challenge);
    let server = server();
    let payer = LdkBackend::new(lightning().payer.ldk.clone());
    assert_eq!(server.look_up([7; 32].into(), None).await.unwrap(), InvoiceState::Unknown);
    assert_eq!(server.look_up(hash, None).await.unwrap(), InvoiceState::Open);

    lightning().payer.pay(challenge.invoice()).await.unwrap();
    lightning().server.has_received(hash).await;
    assert_eq!(server.look_up(hash, None).await.unwrap(), InvoiceState::Settled);
    // What a node has paid itself was not paid to it.
    assert_eq!(payer.look_up(hash, None).await.unwrap(), InvoiceState::Unknown);
}

#[tokio::test]
async fn it_keeps_the_contract_of_a_backend() {
    conformance::backend::check(Arc::new(server())).await;
}

#[tokio::test]
async fn it_keeps_the_contract_over_a_payment() {
    conformance::backend::check_settlement(Arc::new(server()), async |bolt11: String| {
        lightning().payer.pay(&bolt11).await.unwrap();
    })
    .await;
}
