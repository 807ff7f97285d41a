//! phoenixd.

use async_trait::async_trait;
use serde::Deserialize;

use super::settle::{
    STATUS_TIME_LIMIT, Shown, answered_within, failed, invalid, no_preimage, paid, pay_outcome, refused,
    settle, unanswered, uncertain,
};
use super::{PayError, Payment, PaymentRequest, PaymentStatus, Wallet};
use crate::backend::http::Ask;
use crate::backend::phoenixd::{PhoenixdConfig, PhoenixdNode, is_unknown};
use crate::backend::{BackendError, Network};
use crate::error::Error;
use crate::preimage::PaymentHash;

/// Pays with a phoenixd node, which takes no limit of the fee: it is known
/// afterwards alone.
///
/// It takes the full password (`http-password` in `phoenix.conf`), which may do
/// all that the node can. The node speaks plain HTTP, so keep it on the same
/// machine or network, or behind a proxy with TLS. Clones share their
/// connections.
///
/// ```no_run
/// use l402::client::PhoenixdWallet;
/// use l402::{Network, PhoenixdConfig};
///
/// # let password = "";
/// let wallet = PhoenixdWallet::new(PhoenixdConfig::new("http://127.0.0.1:9740", Network::Bitcoin, password))?;
/// # Ok::<(), l402::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct PhoenixdWallet {
    node: PhoenixdNode,
}

impl PhoenixdWallet {
    /// A wallet on this node. It is not asked yet.
    ///
    /// # Errors
    /// The address is no URL, the password is empty, or the certificate cannot
    /// be read or is none.
    pub fn new(config: PhoenixdConfig) -> Result<Self, Error> {
        Ok(Self { node: PhoenixdNode::new(config)? })
    }

    /// A wallet on the node of the environment: `PHOENIXD_URL`,
    /// `PHOENIXD_PASSWORD`, `PHOENIXD_CERTIFICATE_FILE` (where a proxy before it
    /// has a certificate of its own) and `PHOENIXD_NETWORK` (`bitcoin` unless set).
    ///
    /// # Errors
    /// A variable is missing, or as in [`new`](Self::new).
    pub fn from_env() -> Result<Self, Error> {
        Self::new(PhoenixdConfig::from_env("the node's http-password, the full one")?)
    }

    async fn send(&self, payment: &PaymentRequest) -> Result<Payment, PayError> {
        let ask = Ask::post(self.node.uri("/payinvoice")).form(&[("invoice", &payment.bolt11)]);
        let answer = self.node.send(ask, answered_within(payment)).await.map_err(unanswered)?;
        if !answer.status.is_success() {
            return Err(refused(&answer, answer.error()));
        }
        let outcome: Outcome = answer.json().map_err(uncertain)?;
        if outcome.payment_hash.parse() != Ok(payment.payment_hash) {
            return Err(uncertain(invalid("answer is about another payment")));
        }
        match (outcome.payment_preimage, outcome.reason.as_deref()) {
            (Some(preimage), _) => {
                let fee_msat = most_msat(outcome.routing_fee_sat.unwrap_or_default());
                pay_outcome(paid(Some(&preimage), payment.payment_hash, fee_msat))
            }
            (None, Some("this invoice has already been paid")) => Err(no_preimage()),
            (None, Some("another payment is in progress for that invoice")) => {
                Err(uncertain("phoenixd has a payment of this invoice on its way"))
            }
            (None, Some(_)) => Err(failed("phoenixd says that the payment failed")),
            (None, None) => Err(uncertain(invalid("answer says neither that it paid nor that it failed"))),
        }
    }
}

/// The most that a fee can be which is told in whole satoshis, cut off.
fn most_msat(fee_sat: u64) -> u64 {
    fee_sat.saturating_mul(1_000).saturating_add(999)
}

/// What is read of `payment_sent` and of `payment_failed`, which have the same
/// status.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Outcome {
    payment_hash: String,
    payment_preimage: Option<Shown>,
    routing_fee_sat: Option<u64>,
    /// Compared, and never printed: a node may quote anything.
    reason: Option<String>,
}

/// What is read of a payment. Older versions call one paid that has failed: the
/// preimage alone tells.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Outgoing {
    payment_hash: String,
    preimage: Option<Shown>,
    /// In msat.
    fees: Option<u64>,
    completed_at: Option<u64>,
}

#[async_trait]
impl Wallet for PhoenixdWallet {
    fn network(&self) -> Network {
        self.node.network
    }

    fn limits_fees(&self) -> bool {
        false
    }

    async fn pay(&self, payment: &PaymentRequest) -> Result<Payment, PayError> {
        settle(self, payment, self.send(payment)).await
    }

    async fn status(&self, payment_hash: PaymentHash) -> Result<PaymentStatus, BackendError> {
        let path = format!("/payments/outgoingbyhash/{payment_hash}");
        let answer = self.node.send(Ask::get(self.node.uri(&path)), STATUS_TIME_LIMIT).await?;
        if is_unknown(&answer) {
            return Ok(PaymentStatus::Unknown);
        }
        let found: Outgoing = answer.json()?;
        if found.payment_hash.parse() != Ok(payment_hash) {
            return Err(invalid("answer is about another payment"));
        }
        Ok(match (found.preimage, found.completed_at) {
            (Some(preimage), _) => paid(Some(&preimage), payment_hash, found.fees.unwrap_or_default()),
            (None, Some(_)) => PaymentStatus::Failed,
            (None, None) => PaymentStatus::InFlight,
        })
    }
}
