//! A gate that asks the node what was paid.

mod support;

use std::time::Duration;

use http::{HeaderValue, StatusCode};
use l402::{Access, Challenge, FixedClock, IssuerBuilder, Preimage};
use l402_lightning::lightning;
use ldk_node::lightning::ln::channelmanager::PaymentId;
use ldk_node::payment::PaymentKind;
use support::{Shop, hash, now, server};

/// Longer than an issuer remembers that an invoice was not paid.
const A_WHILE: Duration = Duration::from_secs(10);

async fn shop_at(clock: &FixedClock, configure: fn(IssuerBuilder) -> IssuerBuilder) -> Shop {
    Shop::open_with(server(), Access::once(), |issuer| configure(issuer.with_clock(clock.clone()))).await
}

async fn pay(challenge: &Challenge) -> Preimage {
    let preimage = lightning().payer.pay(challenge.invoice()).await.unwrap();
    // The payer has it before the server's node has written the payment down.
    lightning().server.has_received(hash(challenge)).await;
    preimage
}

/// The preimage of an invoice, from the node's own books.
fn leaked(challenge: &Challenge) -> Preimage {
    let payment = lightning().server.ldk.payment(&PaymentId(*hash(challenge).as_bytes())).unwrap();
    let PaymentKind::Bolt11 { preimage: Some(preimage), .. } = payment.kind else { panic!("no preimage") };
    Preimage::from_bytes(preimage.0)
}

#[tokio::test]
async fn strict_settlement_takes_a_payment_and_no_preimage_without_one() {
    let clock = FixedClock::at(now());
    let strict = shop_at(&clock, IssuerBuilder::with_strict_settlement).await;
    let challenge = strict.ask(None).await.challenge();
    let credential = challenge.token().credential(&leaked(&challenge));
    let unpaid = strict.ask(Some(&credential)).await;
    assert_eq!(unpaid.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(unpaid.headers.contains_key("retry-after") && !unpaid.headers.contains_key("www-authenticate"));
    assert_eq!(strict.served(), 0);

    let preimage = pay(&challenge).await;
    clock.advance(A_WHILE);
    assert_eq!(challenge.token().credential(&preimage), credential);
    let paid = strict.ask(Some(&credential)).await;
    assert_eq!((paid.status, paid.body.as_str()), (StatusCode::OK, "Some(0) left, by Preimage"));
    assert_eq!(strict.ask(Some(&credential)).await.status, StatusCode::PAYMENT_REQUIRED);
    assert_eq!(strict.served(), 1);

    // What it is for: a gate that is not strict takes the preimage for a payment.
    let trusting = shop_at(&clock, |issuer| issuer).await;
    let challenge = trusting.ask(None).await.challenge();
    let credential = challenge.token().credential(&leaked(&challenge));
    assert_eq!(trusting.ask(Some(&credential)).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_token_without_its_preimage_is_admitted_once_it_is_paid() {
    let clock = FixedClock::at(now());
    let shop = shop_at(&clock, IssuerBuilder::with_settled_tokens).await;
    let challenge = shop.ask(None).await.challenge();
    let alone = HeaderValue::try_from(format!("L402 {}", challenge.token().to_base64())).unwrap();
    assert_eq!(shop.ask(Some(&alone)).await.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(shop.served(), 0);

    pay(&challenge).await;
    clock.advance(A_WHILE);
    let paid = shop.ask(Some(&alone)).await;
    assert_eq!((paid.status, paid.body.as_str()), (StatusCode::OK, "Some(0) left, by Settled"));
    assert_eq!(shop.ask(Some(&alone)).await.status, StatusCode::PAYMENT_REQUIRED);
    assert_eq!(shop.served(), 1);

    let ordinary = Shop::open(Access::once()).await;
    let challenge = ordinary.ask(None).await.challenge();
    pay(&challenge).await;
    let alone = HeaderValue::try_from(format!("L402 {}", challenge.token().to_base64())).unwrap();
    assert_eq!(ordinary.ask(Some(&alone)).await.status, StatusCode::UNAUTHORIZED);
}
