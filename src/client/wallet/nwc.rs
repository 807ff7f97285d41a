//! Any wallet with Nostr Wallet Connect ([NIP-47]).
//!
//! [NIP-47]: https://github.com/nostr-protocol/nips/blob/master/47.md

use std::fmt;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::settle::{
    STATUS_TIME_LIMIT, Shown, answered_within, failed, invalid, not_sent, paid, pay_outcome, settle,
    tried_for, unanswered, uncertain,
};
use super::{PayError, Payment, PaymentRequest, PaymentStatus, Wallet};
use crate::backend::nwc::{CallError, Client, Code, NwcConfig};
use crate::backend::{BackendError, Network};
use crate::error::Error;
use crate::preimage::PaymentHash;

const PAY_INVOICE: &str = "pay_invoice";
const LOOKUP_INVOICE: &str = "lookup_invoice";

/// Pays with a wallet that has Nostr Wallet Connect (NIP-47): Alby Hub and many
/// others, over a relay that both reach. NIP-47 has no limit of the fee: it is
/// known afterwards alone.
///
/// Give it a connection of its own that may `pay_invoice` and `lookup_invoice`,
/// with a budget in the wallet, which then bounds what can be spent whatever
/// becomes of the connection's secret. Without `lookup_invoice` nothing is paid:
/// what was paid before, and what became of it, could not be told. The wallet
/// has to offer NIP-44 encryption.
///
/// Requests expire when the payment may no longer be tried, so that a wallet
/// which comes back later does not act on them. One connection to the first
/// relay that works serves all clones, as in [`NwcBackend`](crate::NwcBackend).
///
/// ```
/// use l402::client::NwcWallet;
/// use l402::{Network, NwcConfig};
///
/// # let uri = "nostr+walletconnect://b889ff5b1513b641e2a139f661a661364979c5beee91842f8f0ef42ab558e9d4\
/// #     ?relay=wss://relay.example&secret=71a8c14c1407c113601079c4302dab36460f0ccd0ad506f1f2dc73b5100e4f3c";
/// let wallet = NwcWallet::new(NwcConfig::new(uri, Network::Bitcoin))?;
/// # Ok::<(), l402::Error>(())
/// ```
#[derive(Clone)]
pub struct NwcWallet {
    client: Client,
    network: Network,
}

impl NwcWallet {
    /// The wallet of this connection, which is not asked yet.
    ///
    /// # Errors
    /// The connection URI is not one, or the certificate cannot be read; the
    /// error says what is wrong.
    pub fn new(config: NwcConfig) -> Result<Self, Error> {
        let network = config.network();
        Ok(Self { client: config.into_client()?, network })
    }

    /// The wallet of the environment: `NWC_URI`, `NWC_NETWORK` (`bitcoin`
    /// unless set) and `NWC_CERTIFICATE_FILE` (where the relay has a
    /// certificate of its own).
    ///
    /// # Errors
    /// A variable is missing, or as in [`new`](Self::new).
    pub fn from_env() -> Result<Self, Error> {
        Self::new(NwcConfig::from_env()?)
    }

    async fn send(&self, payment: &PaymentRequest) -> Result<Payment, PayError> {
        // What fails before the request is sent is told from what fails after it.
        if !self.client.serves(&[PAY_INVOICE], STATUS_TIME_LIMIT).await.map_err(not_sent)? {
            let what = "wallet does not offer pay_invoice on this connection: give it a connection that may \
                        pay_invoice and lookup_invoice";
            return Err(not_sent(what));
        }
        let pay = Pay { invoice: &payment.bolt11 };
        let asked: Result<Paid, _> =
            self.client.call_within(tried_for(payment), PAY_INVOICE, &pay, answered_within(payment)).await;
        match asked {
            Ok(Paid { preimage, fees_paid }) => {
                pay_outcome(paid(preimage.as_ref(), payment.payment_hash, fees_paid.unwrap_or_default()))
            }
            Err(CallError::Wallet(code)) => Err(refusal(code)),
            // A relay's word that it took no request is not the wallet's.
            Err(CallError::Link(error)) => Err(unanswered(error)),
        }
    }
}

/// What the wallet's code says of the payment. A wallet gives `INTERNAL` and
/// `OTHER` to whatever it has no code for, an attempt that is on its way among
/// it, and `RATE_LIMITED` may be its node's word and not its own: those leave
/// doubt.
fn refusal(code: Code) -> PayError {
    let error = BackendError::from(CallError::Wallet(code));
    match code {
        Code::NotImplemented | Code::Restricted | Code::Unauthorized | Code::UnsupportedEncryption => {
            not_sent(error)
        }
        Code::InsufficientBalance | Code::QuotaExceeded | Code::PaymentFailed => failed(error),
        Code::RateLimited | Code::Internal | Code::NotFound | Code::Other => uncertain(error),
    }
}

#[derive(Serialize)]
struct Pay<'a> {
    invoice: &'a str,
}

#[derive(Deserialize)]
struct Paid {
    preimage: Option<Shown>,
    /// In msat.
    fees_paid: Option<u64>,
}

#[derive(Serialize)]
struct LookUp {
    payment_hash: String,
}

/// What is read of a transaction.
#[derive(Deserialize)]
struct Found {
    #[serde(rename = "type")]
    direction: Option<String>,
    payment_hash: Option<String>,
    state: Option<String>,
    settled_at: Option<u64>,
    preimage: Option<Shown>,
    /// In msat.
    fees_paid: Option<u64>,
}

impl Found {
    fn status(&self, payment_hash: PaymentHash) -> Result<PaymentStatus, BackendError> {
        let paid = || Ok(paid(self.preimage.as_ref(), payment_hash, self.fees_paid.unwrap_or_default()));
        match self.state.as_deref() {
            Some("settled") => paid(),
            Some("failed") => Ok(PaymentStatus::Failed),
            // Wallets older than `state` say when it was settled.
            None if self.settled_at.is_some_and(|at| at > 0) => paid(),
            Some("pending" | "accepted") | None => Ok(PaymentStatus::InFlight),
            Some(_) => Err(invalid("`state` is not one that a payment has")),
        }
    }
}

#[async_trait]
impl Wallet for NwcWallet {
    fn network(&self) -> Network {
        self.network
    }

    fn limits_fees(&self) -> bool {
        false
    }

    async fn pay(&self, payment: &PaymentRequest) -> Result<Payment, PayError> {
        settle(self, payment, self.send(payment)).await
    }

    async fn status(&self, payment_hash: PaymentHash) -> Result<PaymentStatus, BackendError> {
        let ask = LookUp { payment_hash: payment_hash.to_string() };
        let found: Found = match self.client.call(LOOKUP_INVOICE, &ask, STATUS_TIME_LIMIT).await {
            Err(CallError::Wallet(Code::NotFound)) => return Ok(PaymentStatus::Unknown),
            Err(CallError::Wallet(code @ (Code::NotImplemented | Code::Restricted))) => {
                let kind = BackendError::from(CallError::Wallet(code)).kind();
                let what = "wallet does not offer lookup_invoice on this connection: give it a connection that \
                            may pay_invoice and lookup_invoice";
                return Err(BackendError::new(kind, what));
            }
            found => found?,
        };
        if found.payment_hash.as_deref().is_some_and(|hash| hash.parse() != Ok(payment_hash)) {
            return Err(invalid("answer is about another payment"));
        }
        // Where the wallet pays its own invoice, that has the same hash.
        if found.direction.as_deref().is_some_and(|direction| direction != "outgoing") {
            return Err(invalid("answer is about an invoice, not a payment"));
        }
        found.status(payment_hash)
    }
}

impl fmt::Debug for NwcWallet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NwcWallet")
            .field("wallet", &format_args!("{}", self.client.wallet()))
            .field("network", &self.network)
            .finish_non_exhaustive()
    }
}
