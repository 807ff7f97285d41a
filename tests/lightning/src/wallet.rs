//! A wallet of one's own, by the public API of `l402` alone.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use l402::client::{PayError, PayErrorKind, Payment, PaymentRequest, PaymentStatus, Wallet};
use l402::{BackendError, Network, PaymentHash, Preimage};
use ldk_node::NodeError;
use ldk_node::lightning::ln::channelmanager::PaymentId;
use ldk_node::lightning::routing::router::RouteParametersConfig;
use ldk_node::lightning_invoice::Bolt11Invoice;
use ldk_node::payment::{PaymentDirection, PaymentKind, PaymentStatus as LdkStatus};
use tokio::time::{Instant, sleep};

/// How often the node is asked about a payment that is on its way.
const PAUSE: Duration = Duration::from_millis(10);

/// Pays with an LDK node in this process, which holds fees within their limit
/// and pays no hash twice.
#[derive(Clone)]
pub struct LdkWallet(Arc<ldk_node::Node>);

impl LdkWallet {
    pub fn new(node: Arc<ldk_node::Node>) -> Self {
        Self(node)
    }

    /// What it has spent in all, fees included, in msat.
    pub fn spent_msat(&self) -> u64 {
        let sent = self.0.list_payments_with_filter(|payment| {
            payment.direction == PaymentDirection::Outbound && payment.status == LdkStatus::Succeeded
        });
        // What opened the channel is a payment on the chain.
        let sent = sent.iter().filter(|payment| matches!(payment.kind, PaymentKind::Bolt11 { .. }));
        sent.map(|payment| {
            payment.amount_msat.unwrap_or_default() + payment.fee_paid_msat.unwrap_or_default()
        })
        .sum()
    }

    fn look(&self, payment_hash: PaymentHash) -> PaymentStatus {
        let payment = self.0.payment(&PaymentId(*payment_hash.as_bytes()));
        let Some(payment) = payment.filter(|payment| payment.direction == PaymentDirection::Outbound) else {
            return PaymentStatus::Unknown;
        };
        match (payment.status, payment.kind) {
            (LdkStatus::Pending, _) => PaymentStatus::InFlight,
            (LdkStatus::Failed, _) => PaymentStatus::Failed,
            (LdkStatus::Succeeded, PaymentKind::Bolt11 { preimage: Some(preimage), .. }) => {
                let preimage = Preimage::from_bytes(preimage.0);
                PaymentStatus::Paid(Payment::new(preimage, payment.fee_paid_msat.unwrap_or_default()))
            }
            (LdkStatus::Succeeded, _) => PaymentStatus::PaidNoPreimage,
        }
    }
}

#[async_trait]
impl Wallet for LdkWallet {
    fn network(&self) -> Network {
        Network::Regtest
    }

    fn limits_fees(&self) -> bool {
        true
    }

    async fn pay(&self, payment: &PaymentRequest) -> Result<Payment, PayError> {
        let not_sent = |cause: &'static str| PayError::new(PayErrorKind::NotSent, cause);
        let invoice: Bolt11Invoice = payment.bolt11.parse().map_err(|_| not_sent("not an invoice"))?;
        let deadline = Instant::now() + payment.time_limit;
        let limit = RouteParametersConfig::default().with_max_total_routing_fee_msat(payment.max_fee_msat);
        match self.0.bolt11_payment().send(&invoice, Some(limit)) {
            // Its own record tells what becomes of it.
            Ok(_) | Err(NodeError::DuplicatePayment) => {}
            Err(error @ (NodeError::PaymentSendingFailed | NodeError::InvalidInvoice)) => {
                return Err(PayError::new(PayErrorKind::Failed, error));
            }
            Err(error) => return Err(PayError::new(PayErrorKind::Uncertain, error)),
        }
        loop {
            match self.look(payment.payment_hash) {
                PaymentStatus::Paid(paid) => return Ok(paid),
                PaymentStatus::Failed => {
                    return Err(PayError::new(PayErrorKind::Failed, "the payment found no way"));
                }
                PaymentStatus::PaidNoPreimage => {
                    return Err(PayError::new(PayErrorKind::NoPreimage, "the node kept no preimage"));
                }
                _ if Instant::now() >= deadline => {
                    return Err(PayError::new(PayErrorKind::Uncertain, "the payment is on its way still"));
                }
                _ => sleep(PAUSE).await,
            }
        }
    }

    async fn status(&self, payment_hash: PaymentHash) -> Result<PaymentStatus, BackendError> {
        Ok(self.look(payment_hash))
    }
}

impl fmt::Debug for LdkWallet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LdkWallet").finish_non_exhaustive()
    }
}
