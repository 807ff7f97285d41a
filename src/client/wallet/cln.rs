//! Core Lightning, over CLNRest.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::settle::{
    STATUS_TIME_LIMIT, Shown, answered_within, failed, no_preimage, paid, pay_outcome, refused, settle,
    tried_for, unanswered, uncertain,
};
use super::{PayError, Payment, PaymentRequest, PaymentStatus, Wallet};
use crate::backend::cln::{ClnConfig, ClnNode, code_of, error_of};
use crate::backend::http::Answer;
use crate::backend::{BackendError, Network};
use crate::error::Error;
use crate::preimage::PaymentHash;

/// Pays with a Core Lightning node of version 24.11 or later, over CLNRest. Fees
/// are held within what they may be.
///
/// It calls `xpay` and `listpays`, so give it a rune for those alone:
///
/// ```sh
/// lightning-cli createrune restrictions='[["method=xpay","method=listpays"]]'
/// ```
///
/// Clones share their connections.
///
/// ```no_run
/// use l402::client::ClnWallet;
/// use l402::{ClnConfig, Network};
///
/// # let rune = "";
/// let wallet = ClnWallet::new(
///     ClnConfig::new("https://127.0.0.1:3010", Network::Bitcoin, rune)
///         .with_certificate("/var/lib/cln/bitcoin/server.pem"),
/// )?;
/// # Ok::<(), l402::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct ClnWallet {
    node: ClnNode,
}

impl ClnWallet {
    /// A wallet on this node. The certificate is read now; the node is not
    /// asked yet.
    ///
    /// # Errors
    /// The address is no URL, the rune is none, or the certificate cannot be
    /// read or is none.
    pub fn new(config: ClnConfig) -> Result<Self, Error> {
        Ok(Self { node: ClnNode::new(config)? })
    }

    /// A wallet on the node of the environment: `CLN_URL`, `CLN_RUNE` or
    /// `CLN_RUNE_FILE` (a file that holds the rune alone),
    /// `CLN_CERTIFICATE_FILE` (where the node has a certificate of its own) and
    /// `CLN_NETWORK` (`bitcoin` unless set).
    ///
    /// # Errors
    /// A variable is missing, or as in [`new`](Self::new).
    pub fn from_env() -> Result<Self, Error> {
        Self::new(ClnConfig::from_env("xpay and listpays")?)
    }

    async fn send(&self, payment: &PaymentRequest) -> Result<Payment, PayError> {
        let xpay = Xpay {
            invstring: &payment.bolt11,
            maxfee: payment.max_fee_msat,
            retry_for: tried_for(payment).as_secs(),
        };
        let answer = self.node.ask("xpay", &xpay, answered_within(payment)).await.map_err(unanswered)?;
        if !answer.status.is_success() {
            return Err(refusal(&answer));
        }
        let sent: Sent = answer.json().map_err(uncertain)?;
        let fee_msat = sent.amount_sent_msat.saturating_sub(sent.amount_msat);
        pay_outcome(paid(Some(&sent.payment_preimage), payment.payment_hash, fee_msat))
    }
}

#[derive(Serialize)]
struct Xpay<'a> {
    invstring: &'a str,
    /// In msat.
    maxfee: u64,
    /// In seconds.
    retry_for: u64,
}

#[derive(Deserialize)]
struct Sent {
    payment_preimage: Shown,
    amount_msat: u64,
    amount_sent_msat: u64,
}

#[derive(Serialize)]
struct ByHash {
    payment_hash: String,
}

#[derive(Deserialize)]
struct Listed {
    pays: Vec<Pay>,
}

/// What is read of a payment: one for each time that it was tried.
#[derive(Deserialize)]
struct Pay {
    payment_hash: String,
    status: Status,
    preimage: Option<Shown>,
    amount_msat: Option<u64>,
    amount_sent_msat: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    Pending,
    Failed,
    Complete,
}

impl Pay {
    fn fee_msat(&self) -> u64 {
        let (Some(amount), Some(sent)) = (self.amount_msat, self.amount_sent_msat) else { return 0 };
        sent.saturating_sub(amount)
    }
}

/// By the codes of `xpay`.
fn refusal(answer: &Answer) -> PayError {
    match code_of(answer) {
        Some(203) => failed("payee refuses the payment"),
        Some(205 | 206 | 209 | 210) => failed("Core Lightning finds no way, within the fee and the time"),
        Some(207) => failed("invoice has expired"),
        Some(219) => no_preimage(),
        Some(-32602) => failed("Core Lightning does not take the invoice"),
        _ => refused(answer, error_of(answer)),
    }
}

#[async_trait]
impl Wallet for ClnWallet {
    fn network(&self) -> Network {
        self.node.network
    }

    fn limits_fees(&self) -> bool {
        true
    }

    async fn pay(&self, payment: &PaymentRequest) -> Result<Payment, PayError> {
        settle(self, payment, self.send(payment)).await
    }

    async fn status(&self, payment_hash: PaymentHash) -> Result<PaymentStatus, BackendError> {
        let asked = ByHash { payment_hash: payment_hash.to_string() };
        let answer = self.node.call("listpays", &asked, STATUS_TIME_LIMIT).await?;
        let mut pays = answer.json::<Listed>()?.pays;
        pays.retain(|pay| pay.payment_hash == asked.payment_hash);
        let find = |status| pays.iter().find(|pay| pay.status == status);
        Ok(if let Some(pay) = find(Status::Complete) {
            paid(pay.preimage.as_ref(), payment_hash, pay.fee_msat())
        } else if find(Status::Pending).is_some() {
            PaymentStatus::InFlight
        } else if pays.is_empty() {
            PaymentStatus::Unknown
        } else {
            // While `xpay` looks for another way it is failed, too: whoever has not
            // waited for `xpay` itself believes it only when its time is over.
            PaymentStatus::Failed
        })
    }
}
