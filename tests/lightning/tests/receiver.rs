//! The receiving node has the last word. Alone in its binary: it moves the time
//! of the chain, which ends the invoices of every other test.

mod support;

use http::StatusCode;
use l402::{Access, InvoiceState, PaymentBackend as _, Preimage};
use l402_lightning::{PayError, lightning};
use ldk_node::lightning_invoice::Bolt11Invoice;
use support::{Shop, hash, now, server};

#[tokio::test]
async fn an_htlc_for_an_invoice_that_ended_comes_back() {
    let shop = Shop::open(Access::once()).await;
    let challenge = shop.ask(None).await.challenge();
    let invoice: Bolt11Invoice = challenge.invoice().parse().unwrap();
    // The receiver reads the time off the chain, and allows two hours.
    lightning().chain.mine_at(u32::try_from(now() + 3 * 3600).unwrap());
    lightning().sync();

    assert!(!invoice.is_expired(), "the payer would not send it");
    let failed = lightning().payer.pay(challenge.invoice()).await.unwrap_err();
    assert_eq!(failed, PayError::Failed("Some(RecipientRejected)".to_owned()));
    assert_eq!(lightning().server.payments(hash(&challenge)), 0);
    assert_eq!(server().look_up(hash(&challenge), None).await.unwrap(), InvoiceState::Open);
    let guessed = challenge.token().credential(&Preimage::from_bytes([7; 32]));
    assert_eq!(shop.ask(Some(&guessed)).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(shop.served(), 0);

    // The next one is paid: channel and nodes are as they were.
    let challenge = shop.ask(None).await.challenge();
    let preimage = lightning().payer.pay(challenge.invoice()).await.unwrap();
    assert_eq!(shop.ask(Some(&challenge.token().credential(&preimage))).await.status, StatusCode::OK);
}
