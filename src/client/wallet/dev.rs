//! The wallet of the backend without a node.

use async_trait::async_trait;

use super::{PayError, PayErrorKind, Payment, PaymentRequest, PaymentStatus, Wallet};
use crate::backend::{BackendError, DevBackend, DevPayError, DevPayment, Network};
use crate::preimage::PaymentHash;

/// Pays the invoices of this backend and its clones, and no others, without a
/// fee. Not to be taken for [`DevBackend::pay`], which a second payment of an
/// invoice is an error of.
#[async_trait]
impl Wallet for DevBackend {
    fn network(&self) -> Network {
        Network::Regtest
    }

    fn limits_fees(&self) -> bool {
        true
    }

    async fn pay(&self, payment: &PaymentRequest) -> Result<Payment, PayError> {
        let failed = |cause| Err(PayError::new(PayErrorKind::Failed, cause));
        match DevBackend::pay(self, &payment.bolt11) {
            Ok(_) | Err(DevPayError::AlreadyPaid) => {}
            Err(error) => return failed(error),
        }
        match self.payment(payment.payment_hash) {
            DevPayment::Paid(preimage) => Ok(Payment::new(preimage, 0)),
            // Another one was paid than was named.
            _ => Err(PayError::new(PayErrorKind::NoPreimage, "invoice has another payment hash")),
        }
    }

    async fn status(&self, payment_hash: PaymentHash) -> Result<PaymentStatus, BackendError> {
        Ok(match self.payment(payment_hash) {
            DevPayment::Paid(preimage) => PaymentStatus::Paid(Payment::new(preimage, 0)),
            DevPayment::Expired => PaymentStatus::Failed,
            DevPayment::None => PaymentStatus::Unknown,
        })
    }
}
