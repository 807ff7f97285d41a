//! A backend of one's own, by the public API of `l402` alone.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use l402::{
    BackendError, BackendErrorKind, Capabilities, Invoice, InvoiceRequest, InvoiceState, LookUpBy, Network,
    PaymentBackend, PaymentHash,
};
use ldk_node::lightning::ln::channelmanager::PaymentId;
use ldk_node::lightning_invoice::{Bolt11InvoiceDescription, Description};
use ldk_node::payment::{PaymentDirection, PaymentStatus};

/// Takes payments on an LDK node in this process.
#[derive(Clone)]
pub struct LdkBackend(Arc<ldk_node::Node>);

impl LdkBackend {
    pub fn new(node: Arc<ldk_node::Node>) -> Self {
        Self(node)
    }
}

#[async_trait]
impl PaymentBackend for LdkBackend {
    fn capabilities(&self) -> Capabilities {
        Capabilities::node(Network::Regtest).with_look_up(LookUpBy::PaymentHash)
    }

    async fn create_invoice(&self, ask: &InvoiceRequest) -> Result<Invoice, BackendError> {
        let rejected = |cause: &'static str| BackendError::new(BackendErrorKind::Rejected, cause);
        let expiry = u32::try_from(ask.expiry.as_secs()).map_err(|_| rejected("expiry is too long"))?;
        // BOLT 11 has room for 639 bytes, which are 159 characters at least.
        let description = Description::new(ask.description.chars().take(159).collect())
            .map_err(|_| rejected("description is too long"))?;
        let invoice = self
            .0
            .bolt11_payment()
            .receive(ask.amount_msat, &Bolt11InvoiceDescription::Direct(description), expiry)
            .map_err(|cause| BackendError::new(BackendErrorKind::Backend, cause))?;
        let hash: &[u8; 32] = invoice.payment_hash().as_ref();
        Ok(Invoice::from_bolt11(invoice.to_string()).with_payment_hash((*hash).into()))
    }

    async fn look_up(&self, hash: PaymentHash, _: Option<&str>) -> Result<InvoiceState, BackendError> {
        let payment = self.0.payment(&PaymentId(*hash.as_bytes()));
        Ok(match payment.filter(|payment| payment.direction == PaymentDirection::Inbound) {
            None => InvoiceState::Unknown,
            Some(payment) => match payment.status {
                PaymentStatus::Succeeded => InvoiceState::Settled,
                PaymentStatus::Failed => InvoiceState::Closed,
                // An expired invoice too: the node keeps no expiry, and takes
                // an HTLC for it up to two hours later.
                PaymentStatus::Pending => InvoiceState::Open,
            },
        })
    }

    async fn check_health(&self) -> Result<(), BackendError> {
        if !self.0.status().is_running {
            return Err(BackendError::connect("the node is not running"));
        }
        Ok(())
    }
}

impl fmt::Debug for LdkBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LdkBackend").finish_non_exhaustive()
    }
}
