//! A gate sells, a node pays over the channel, the gate admits.

mod support;

use std::collections::HashSet;

use futures_util::future::join_all;
use http::StatusCode;
use l402::{Access, Preimage};
use l402_lightning::{PayError, lightning};
use ldk_node::NodeError;
use ldk_node::lightning_invoice::Bolt11Invoice;
use support::{Shop, hash};

#[tokio::test]
async fn a_payment_over_the_channel_opens_the_gate() {
    let shop = Shop::open(Access::uses(2)).await;
    let challenge = shop.ask(None).await.challenge();
    let invoice: Bolt11Invoice = challenge.invoice().parse().unwrap();
    assert_eq!(invoice.recover_payee_pub_key(), lightning().server.ldk.node_id());
    assert_eq!(invoice.amount_milli_satoshis(), Some(21_000));

    let unpaid = challenge.token().credential(&Preimage::from_bytes([7; 32]));
    assert_eq!(shop.ask(Some(&unpaid)).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(shop.served(), 0);

    let preimage = lightning().payer.pay(challenge.invoice()).await.unwrap();
    let paid = challenge.token().credential(&preimage);
    for left in ["Some(1) left, by Preimage", "Some(0) left, by Preimage"] {
        let answer = shop.ask(Some(&paid)).await;
        assert_eq!((answer.status, answer.body.as_str()), (StatusCode::OK, left));
    }
    let used_up = shop.ask(Some(&paid)).await.challenge();
    assert_ne!(hash(&used_up), hash(&challenge));
    assert_eq!(shop.served(), 2);
}

#[tokio::test]
async fn an_invoice_is_paid_once() {
    let shop = Shop::open(Access::once()).await;
    let challenge = shop.ask(None).await.challenge();
    // Twice at the same time, and again when it is paid.
    let pay = || lightning().payer.pay(challenge.invoice());
    let (mut paid, mut refused) = (Vec::new(), Vec::new());
    for outcome in [join_all([pay(), pay()]).await, vec![pay().await]].concat() {
        match outcome {
            Ok(preimage) => paid.push(preimage),
            Err(error) => refused.push(error),
        }
    }
    assert_eq!(refused, [const { PayError::NotSent(NodeError::DuplicatePayment) }; 2]);
    let [preimage] = &paid[..] else { panic!("{} payments", paid.len()) };
    lightning().server.has_received(hash(&challenge)).await;
    assert_eq!(lightning().server.payments(hash(&challenge)), 1);

    let paid = challenge.token().credential(preimage);
    assert_eq!(shop.ask(Some(&paid)).await.status, StatusCode::OK);
    assert_eq!(shop.ask(Some(&paid)).await.status, StatusCode::PAYMENT_REQUIRED);
    assert_eq!(shop.served(), 1);
}

#[tokio::test]
async fn ten_payers_at_once_get_in_by_their_own_tokens() {
    let shop = Shop::open(Access::once()).await;
    let answers = join_all((0..10).map(|_| shop.ask(None))).await;
    let challenges: Vec<_> = answers.iter().map(l402_lightning::Answer::challenge).collect();
    let hashes: HashSet<_> = challenges.iter().map(hash).collect();
    assert_eq!(hashes.len(), 10);

    // All are sent before the first is waited for.
    let payments =
        join_all(challenges.iter().map(|challenge| lightning().payer.pay(challenge.invoice()))).await;
    let preimages: Vec<_> = payments.into_iter().map(Result::unwrap).collect();

    let credentials = |shift: usize| {
        let preimages = preimages.iter().cycle().skip(shift);
        challenges.iter().zip(preimages).map(|(challenge, preimage)| challenge.token().credential(preimage))
    };
    let ask_all = async |shift: usize| {
        let credentials: Vec<_> = credentials(shift).collect();
        let answers = join_all(credentials.iter().map(|credential| shop.ask(Some(credential)))).await;
        answers.iter().map(|answer| answer.status).collect::<Vec<_>>()
    };
    // What paid for one token opens no other.
    assert_eq!(ask_all(1).await, [StatusCode::UNAUTHORIZED; 10]);
    assert_eq!(shop.served(), 0);
    assert_eq!(ask_all(0).await, [StatusCode::OK; 10]);
    assert_eq!(ask_all(0).await, [StatusCode::PAYMENT_REQUIRED; 10]);
    assert_eq!(shop.served(), 10);
    for hash in hashes {
        lightning().server.has_received(hash).await;
        assert_eq!(lightning().server.payments(hash), 1);
    }
}
