//! The wallet of the backend without a node.

use async_trait::async_trait;

use super::{PayError, PayErrorKind, Payment, PaymentRequest, PaymentStatus, Wallet};
use crate::backend::dev::DevPayment;
use crate::backend::{BackendError, DevBackend, Network};
use crate::bolt11;
use crate::preimage::PaymentHash;

/// Pays the invoices of this backend and its clones, and no others, without a
/// fee. Beside [`DevBackend::pay`], to which a second payment of an invoice is
/// an error, this gives the same preimage again.
#[async_trait]
impl Wallet for DevBackend {
    fn network(&self) -> Network {
        Network::Regtest
    }

    fn limits_fees(&self) -> bool {
        true
    }

    async fn pay(&self, payment: &PaymentRequest) -> Result<Payment, PayError> {
        let invoice = bolt11::read(&payment.bolt11);
        if invoice.is_some_and(|invoice| invoice.payment_hash != payment.payment_hash) {
            return Err(PayError::new(
                PayErrorKind::NotSent,
                "invoice has another payment hash than was named",
            ));
        }
        let error = match DevBackend::pay(self, &payment.bolt11) {
            Ok(preimage) => return Ok(Payment::new(preimage, 0)),
            Err(error) => error,
        };
        match self.payment(payment.payment_hash) {
            DevPayment::Paid(preimage) => Ok(Payment::new(preimage, 0)),
            DevPayment::Expired | DevPayment::None => Err(PayError::new(PayErrorKind::Failed, error)),
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
