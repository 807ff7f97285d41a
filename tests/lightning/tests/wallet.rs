//! The contract of a wallet, over the channel; and a gate that is paid by one.

mod support;

use std::sync::Arc;

use http::StatusCode;
use l402::client::{PaymentRequest, PaymentStatus, Wallet as _};
use l402::{Access, Network, PaymentBackend as _, conformance};
use l402_lightning::{LdkWallet, lightning};
use support::{Shop, hash, server};

fn payer() -> LdkWallet {
    LdkWallet::new(lightning().payer.ldk.clone())
}

/// One test: what the wallet has spent is counted over all payments.
#[tokio::test]
async fn it_keeps_the_contract_of_a_wallet() {
    let wallet = payer();
    let spent = async || wallet.spent_msat();
    conformance::wallet::check(Arc::new(wallet.clone()), Arc::new(server()), spent).await;

    // More than the channel holds.
    let ask = l402::InvoiceRequest::test(2_000_000_000);
    let invoice = server().create_invoice(&ask).await.unwrap();
    let payment = PaymentRequest::new(invoice.bolt11(), invoice.payment_hash().unwrap(), ask.amount_msat);
    conformance::wallet::check_unpayable(Arc::new(wallet.clone()), &payment, spent).await;

    // A gate's challenge, as a paying client has it.
    let shop = Shop::open(Access::uses(1)).await;
    let challenge = shop.ask(None).await.challenge();
    let payment = PaymentRequest::new(challenge.invoice(), hash(&challenge), 21_000);
    let paid = wallet.pay(&payment).await.unwrap();
    assert_eq!(paid.fee_msat, 0, "the channel is direct");
    lightning().server.has_received(hash(&challenge)).await;
    assert_eq!(lightning().server.payments(hash(&challenge)), 1);
    let credential = challenge.token().credential(&paid.preimage);
    assert_eq!(shop.ask(Some(&credential)).await.status, StatusCode::OK);

    // What a node is paid is no payment of its own.
    let receiver = LdkWallet::new(lightning().server.ldk.clone());
    assert_eq!(receiver.network(), Network::Regtest);
    assert!(matches!(receiver.status(hash(&challenge)).await.unwrap(), PaymentStatus::Unknown));
}
