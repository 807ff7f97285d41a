//! What is left when the time of an invoice or of a token has passed. The
//! payer's clock is the machine's; gate and invoices have one that the test sets.

mod support;

use http::StatusCode;
use l402::{Access, FixedClock, HOUR, Preimage};
use l402_lightning::{PayError, lightning};
use ldk_node::NodeError;
use ldk_node::lightning_invoice::Bolt11Invoice;
use support::dated::DatedBackend;
use support::{Shop, hash, now};

async fn shop_at(clock: &FixedClock) -> Shop {
    let backend = DatedBackend(clock.clone());
    Shop::open_with(backend, Access::pass(HOUR), |issuer| issuer.with_clock(clock.clone())).await
}

#[tokio::test]
async fn an_invoice_from_an_hour_ago_is_not_paid_any_more() {
    let clock = FixedClock::at(now() - 3600);
    let shop = shop_at(&clock).await;
    let stale = shop.ask(None).await.challenge();
    assert!(stale.invoice().parse::<Bolt11Invoice>().unwrap().is_expired());

    let refused = lightning().payer.pay(stale.invoice()).await.unwrap_err();
    assert_eq!(refused, PayError::NotSent(NodeError::PaymentSendingFailed));
    assert_eq!(lightning().server.payments(hash(&stale)), 0);
    clock.advance(HOUR);
    let guessed = stale.token().credential(&Preimage::from_bytes([7; 32]));
    assert_eq!(shop.ask(Some(&guessed)).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(shop.served(), 0);

    // The same shop's invoice of now is paid.
    let fresh = shop.ask(None).await.challenge();
    let preimage = lightning().payer.pay(fresh.invoice()).await.unwrap();
    assert_eq!(shop.ask(Some(&fresh.token().credential(&preimage))).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_paid_token_ends_with_its_time() {
    let sold_at = now();
    let clock = FixedClock::at(sold_at);
    let shop = shop_at(&clock).await;
    let challenge = shop.ask(None).await.challenge();
    let preimage = lightning().payer.pay(challenge.invoice()).await.unwrap();
    let paid = challenge.token().credential(&preimage);
    assert_eq!(shop.ask(Some(&paid)).await.status, StatusCode::OK);

    // The pass lasts from the end of the invoice.
    let end = sold_at + 5 * 60 + 3600;
    clock.set(end - 1);
    assert_eq!(shop.ask(Some(&paid)).await.status, StatusCode::OK);
    clock.set(end);
    let again = shop.ask(Some(&paid)).await.challenge();
    assert_eq!(shop.served(), 2);

    let preimage = lightning().payer.pay(again.invoice()).await.unwrap();
    assert_eq!(shop.ask(Some(&again.token().credential(&preimage))).await.status, StatusCode::OK);
}
