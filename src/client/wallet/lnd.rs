//! LND, over its REST API.

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use serde::{Deserialize, Serialize};

use super::settle::{
    STATUS_TIME_LIMIT, Shown, answered_within, failed, invalid, no_preimage, paid, pay_outcome, refused,
    settle, tried_for, unanswered, uncertain,
};
use super::{PayError, Payment, PaymentRequest, PaymentStatus, Wallet};
use crate::backend::http::{Answer, Ask};
use crate::backend::lnd::{LndConfig, LndFailure, LndNode, error_of};
use crate::backend::{BackendError, Network};
use crate::error::Error;
use crate::preimage::PaymentHash;

/// The code of gRPC for a payment of this hash that was made or is on its way.
const ALREADY_EXISTS: i64 = 6;

/// Pays with an LND node, over its REST API. Fees are held within what they may
/// be.
///
/// It takes a macaroon that may pay and be asked about payments, which
/// `invoice.macaroon` may not. One that may do nothing else:
///
/// ```sh
/// lncli bakemacaroon --save_to pay.macaroon offchain:write offchain:read
/// ```
///
/// Clones share their connections.
///
/// ```no_run
/// use l402::client::LndWallet;
/// use l402::{LndConfig, Network};
///
/// let wallet = LndWallet::new(
///     LndConfig::new("https://127.0.0.1:8080", Network::Bitcoin, "/var/lib/lnd/pay.macaroon")
///         .with_certificate("/var/lib/lnd/tls.cert"),
/// )?;
/// # Ok::<(), l402::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct LndWallet {
    node: LndNode,
}

impl LndWallet {
    /// A wallet on this node. Files are read now; the node is not asked yet.
    ///
    /// # Errors
    /// The address is no URL, or a file cannot be read or is not what it should be.
    pub fn new(config: LndConfig) -> Result<Self, Error> {
        Ok(Self { node: LndNode::new(config)? })
    }

    /// A wallet on the node of the environment: `LND_URL`, `LND_MACAROON_FILE`,
    /// `LND_CERTIFICATE_FILE` (where the node has a certificate of its own) and
    /// `LND_NETWORK` (`bitcoin` unless set).
    ///
    /// # Errors
    /// A variable is missing, or as in [`new`](Self::new).
    pub fn from_env() -> Result<Self, Error> {
        Self::new(LndConfig::from_env("the path of a macaroon that may pay (offchain:write, offchain:read)")?)
    }

    async fn send(&self, payment: &PaymentRequest) -> Result<Payment, PayError> {
        let order = Send {
            payment_request: &payment.bolt11,
            fee_limit_msat: payment.max_fee_msat.min(i64::MAX.unsigned_abs()).to_string(),
            timeout_seconds: tried_for(payment).as_secs(),
            no_inflight_updates: true,
        };
        let ask = Ask::post(self.node.uri("/v2/router/send")).json(&order);
        let answer = self.node.send_for_line(ask, answered_within(payment)).await.map_err(unanswered)?;
        match result_of(&answer) {
            Some(sent) => pay_outcome(sent.status(payment.payment_hash).map_err(uncertain)?),
            None => Err(refusal(&answer)),
        }
    }
}

#[derive(Serialize)]
struct Send<'a> {
    payment_request: &'a str,
    /// 64-bit integers are strings in LND's JSON. Zero is no fee at all.
    fee_limit_msat: String,
    timeout_seconds: u64,
    no_inflight_updates: bool,
}

/// A line of a stream.
#[derive(Deserialize)]
struct Line {
    result: Sent,
}

/// What is read of a payment.
#[derive(Deserialize)]
struct Sent {
    payment_hash: String,
    status: String,
    payment_preimage: Option<Shown>,
    fee_msat: Option<String>,
}

impl Sent {
    fn status(&self, payment_hash: PaymentHash) -> Result<PaymentStatus, BackendError> {
        if self.payment_hash.parse() != Ok(payment_hash) {
            return Err(invalid("answer is about another payment"));
        }
        // A payment is not given up for a fee that cannot be read.
        let fee_msat = self.fee_msat.as_deref().and_then(|fee| fee.parse().ok()).unwrap_or_default();
        match &*self.status {
            "SUCCEEDED" => Ok(paid(self.payment_preimage.as_ref(), payment_hash, fee_msat)),
            "FAILED" => Ok(PaymentStatus::Failed),
            "IN_FLIGHT" | "INITIATED" => Ok(PaymentStatus::InFlight),
            _ => Err(invalid("`status` is not one of LND's")),
        }
    }
}

fn result_of(answer: &Answer) -> Option<Sent> {
    answer.json().ok().map(|Line { result }| result)
}

fn refusal(answer: &Answer) -> PayError {
    let LndFailure { code, message } = LndFailure::of(answer);
    match code {
        ALREADY_EXISTS if message.contains("already paid") => no_preimage(),
        ALREADY_EXISTS => uncertain("LND has a payment of this hash already"),
        // Before anything is sent, by the node's clock.
        _ if message.starts_with("invoice expired") => failed("invoice has expired"),
        _ => refused(answer, error_of(answer)),
    }
}

#[async_trait]
impl Wallet for LndWallet {
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
        let path = format!("/v2/router/track/{}", URL_SAFE.encode(payment_hash.as_bytes()));
        // The first line comes at once, and the stream may go on.
        let answer = self.node.send_for_line(Ask::get(self.node.uri(&path)), STATUS_TIME_LIMIT).await?;
        match result_of(&answer) {
            Some(sent) => sent.status(payment_hash),
            // The code is that of a path which it does not know, too.
            None if LndFailure::of(&answer).message.contains("payment isn't initiated") => {
                Ok(PaymentStatus::Unknown)
            }
            None => Err(error_of(&answer)),
        }
    }
}
