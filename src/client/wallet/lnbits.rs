//! LNbits, a server of wallets.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::settle::{
    STATUS_TIME_LIMIT, Shown, answered_within, failed, invalid, no_preimage, paid, pay_outcome, refused,
    settle, unanswered, uncertain,
};
use super::{PayError, Payment, PaymentRequest, PaymentStatus, Wallet};
use crate::backend::http::{Answer, Ask};
use crate::backend::lnbits::{LnbitsConfig, LnbitsServer, error_of, is_unknown, wrong_key};
use crate::backend::{BackendError, Network};
use crate::error::Error;
use crate::preimage::PaymentHash;

/// Pays from a wallet of an LNbits server, which takes no limit of the fee: it
/// is known afterwards alone.
///
/// It takes the wallet's admin key, which may spend all that the wallet has:
/// make a wallet of its own, and fill it with what may be spent. Where the
/// server's node shows no preimages, a payment ends as
/// [`NoPreimage`](super::PayErrorKind::NoPreimage). Clones share their
/// connections.
///
/// ```no_run
/// use l402::client::LnbitsWallet;
/// use l402::{LnbitsConfig, Network};
///
/// # let admin_key = String::new();
/// let wallet = LnbitsWallet::new(LnbitsConfig::new("https://lnbits.example", Network::Bitcoin, admin_key))?;
/// # Ok::<(), l402::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct LnbitsWallet {
    server: LnbitsServer,
}

impl LnbitsWallet {
    /// The wallet of this admin key. The server is not asked yet.
    ///
    /// # Errors
    /// The address is no URL, the key cannot be sent, or the certificate
    /// cannot be read.
    pub fn new(config: LnbitsConfig) -> Result<Self, Error> {
        Ok(Self { server: LnbitsServer::new(config)? })
    }

    /// The wallet of the environment: `LNBITS_URL`, `LNBITS_ADMIN_KEY`,
    /// `LNBITS_CERTIFICATE_FILE` (where the server has a certificate of its
    /// own) and `LNBITS_NETWORK` (`bitcoin` unless set).
    ///
    /// # Errors
    /// A variable is missing, or as in [`new`](Self::new).
    pub fn from_env() -> Result<Self, Error> {
        Self::new(LnbitsConfig::from_env("LNBITS_ADMIN_KEY", "the admin key of the wallet")?)
    }

    async fn send(&self, payment: &PaymentRequest) -> Result<Payment, PayError> {
        let pay = Pay { out: true, bolt11: &payment.bolt11 };
        let ask = Ask::post(self.server.uri("/api/v1/payments")).json(&pay);
        let answer = self.server.send(ask, answered_within(payment)).await.map_err(unanswered)?;
        if !answer.status.is_success() {
            return Err(refusal(&answer));
        }
        let made: Details = answer.json().map_err(uncertain)?;
        if made.payment_hash.parse() != Ok(payment.payment_hash) {
            return Err(uncertain(invalid("answer is about another payment")));
        }
        match made.status.as_deref() {
            Some("success") => pay_outcome(made.paid(payment.payment_hash)),
            Some("failed") => Err(failed("LNbits says that the payment failed")),
            // On its way; or a server before 1.0, which does not say.
            _ => Err(uncertain("LNbits does not say yet what became of the payment")),
        }
    }
}

#[derive(Serialize)]
struct Pay<'a> {
    /// A payment, not an invoice.
    out: bool,
    bolt11: &'a str,
}

#[derive(Deserialize)]
struct Found {
    paid: bool,
    status: Option<String>,
    /// Only of a payment of the wallet whose key was sent.
    details: Option<Details>,
}

/// What is read of a payment.
#[derive(Deserialize)]
struct Details {
    payment_hash: String,
    status: Option<String>,
    /// In msat; negative where it was paid by the wallet.
    amount: Option<i64>,
    /// In msat, of either sign.
    fee: Option<i64>,
    preimage: Option<Shown>,
}

impl Details {
    fn paid(&self, payment_hash: PaymentHash) -> PaymentStatus {
        paid(self.preimage.as_ref(), payment_hash, self.fee.unwrap_or_default().unsigned_abs())
    }
}

/// 520 for whatever it does not do: its `status` says what that was.
fn refusal(answer: &Answer) -> PayError {
    #[derive(Deserialize)]
    struct Failure {
        status: String,
    }
    let status = answer.body_as::<Failure>().map(|failure| failure.status).unwrap_or_default();
    match (answer.status.as_u16(), &*status) {
        (520, "failed") => failed("LNbits does not pay this: too little money, or no way"),
        (520, "success") => no_preimage(),
        _ => refused(answer, error_of(answer)),
    }
}

#[async_trait]
impl Wallet for LnbitsWallet {
    fn network(&self) -> Network {
        self.server.network
    }

    fn limits_fees(&self) -> bool {
        false
    }

    async fn pay(&self, payment: &PaymentRequest) -> Result<Payment, PayError> {
        settle(self, payment, self.send(payment)).await
    }

    async fn status(&self, payment_hash: PaymentHash) -> Result<PaymentStatus, BackendError> {
        let path = format!("/api/v1/payments/{payment_hash}");
        let answer = self.server.send(Ask::get(self.server.uri(&path)), STATUS_TIME_LIMIT).await?;
        if !answer.status.is_success() {
            return if is_unknown(&answer) { Ok(PaymentStatus::Unknown) } else { Err(error_of(&answer)) };
        }
        let found: Found = answer.json()?;
        // Without a key that it knows, LNbits tells of any wallet's payments.
        let Some(details) = found.details else { return Err(wrong_key()) };
        if details.payment_hash.parse() != Ok(payment_hash) {
            return Err(invalid("answer is about another payment"));
        }
        if details.amount.is_none_or(|amount| amount >= 0) {
            return Err(invalid("answer is about an invoice of the wallet, not a payment"));
        }
        Ok(match found.status.as_deref() {
            _ if found.paid => details.paid(payment_hash),
            Some("failed") => PaymentStatus::Failed,
            _ => PaymentStatus::InFlight,
        })
    }
}
