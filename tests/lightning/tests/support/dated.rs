//! The server's node, as if the time were another.

use std::time::UNIX_EPOCH;

use async_trait::async_trait;
use l402::{
    BackendError, Capabilities, Clock as _, FixedClock, Invoice, InvoiceRequest, Network, PaymentBackend,
};
use l402_lightning::{SERVER_SEED, lightning};
use ldk_node::bitcoin::bip32::{ChildNumber, Xpriv};
use ldk_node::bitcoin::secp256k1::{Secp256k1, SecretKey};
use ldk_node::lightning_invoice::{Bolt11Invoice, Bolt11InvoiceDescription, Description, PositiveTimestamp};

/// Invoices of the server's node, dated by this clock and signed again with the
/// node's own key. The node, which knows no date of an invoice, takes payments
/// for them as for any other.
#[derive(Debug)]
pub struct DatedBackend(pub FixedClock);

#[async_trait]
impl PaymentBackend for DatedBackend {
    fn capabilities(&self) -> Capabilities {
        Capabilities::node(Network::Regtest)
    }

    async fn create_invoice(&self, ask: &InvoiceRequest) -> Result<Invoice, BackendError> {
        let description =
            Bolt11InvoiceDescription::Direct(Description::new(ask.description.clone()).unwrap());
        let expiry = u32::try_from(ask.expiry.as_secs()).unwrap();
        let node = &lightning().server.ldk;
        let invoice = node.bolt11_payment().receive(ask.amount_msat, &description, expiry).unwrap();
        let (mut raw, _, _) = invoice.into_signed_raw().into_parts();
        let now = self.0.now().duration_since(UNIX_EPOCH).unwrap();
        raw.data.timestamp = PositiveTimestamp::from_unix_timestamp(now.as_secs()).unwrap();
        let signed = raw.sign(|hash| Ok::<_, ()>(Secp256k1::new().sign_ecdsa_recoverable(hash, &node_key())));
        let invoice = Bolt11Invoice::from_signed(signed.unwrap()).unwrap();
        assert_eq!(invoice.recover_payee_pub_key(), node.node_id());
        Ok(Invoice::from_bolt11(invoice.to_string()))
    }
}

/// As an LDK node derives it from its seed.
fn node_key() -> SecretKey {
    let network = ldk_node::bitcoin::Network::Regtest;
    let seed = Xpriv::new_master(network, &SERVER_SEED).unwrap().private_key.secret_bytes();
    let path = [ChildNumber::from_hardened_idx(0).unwrap()];
    Xpriv::new_master(network, &seed).unwrap().derive_priv(&Secp256k1::new(), &path).unwrap().private_key
}
