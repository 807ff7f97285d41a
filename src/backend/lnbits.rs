//! LNbits, a server of wallets.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use http::header::{HeaderName, HeaderValue};
use http::{StatusCode, Uri};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::config::{base_url, env, env_network, env_opt, secret_header};
use super::http::{Answer, Ask, Http, Reach};
use super::tls::Trust;
use super::{
    BackendError, BackendErrorKind, Capabilities, Invoice, InvoiceRequest, InvoiceState, LookUpBy, Network,
    PaymentBackend, shortened,
};
use crate::error::Error;
use crate::preimage::PaymentHash;

/// How long the server may take to make an invoice, and to say what became of one.
const CREATE_TIME_LIMIT: Duration = Duration::from_secs(10);
const LOOK_UP_TIME_LIMIT: Duration = Duration::from_secs(5);

/// Longest description of a BOLT 11 invoice, in bytes.
const MAX_MEMO: usize = 639;

/// LNbits bills whole satoshis, and cuts fractions off without a word.
const STEP_MSAT: u64 = 1_000;

const API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// Makes invoices for a wallet of an LNbits server, in whole satoshis.
///
/// Two wallets of one server pay each other on its books, where no preimage
/// proves a payment: the gate asks the server about every token before it
/// admits it. Whoever runs the server is trusted with the money and with what
/// it says was paid.
///
/// The wallet's invoice key is enough, and the one to use: it can spend
/// nothing. It shows its holder the preimages of unpaid invoices, and LNbits
/// shows that of a paid one to anybody who knows the payment hash: with LNbits a
/// token alone is worth what was paid for it. Clones share their connections.
///
/// LNbits answers 200 requests a minute to one address unless it is set
/// (`LNBITS_RATE_LIMIT_NO`): each invoice is one, and each payment.
///
/// ```no_run
/// use l402::{LnbitsBackend, LnbitsConfig, Network};
///
/// # let invoice_key = String::new();
/// let wallet = LnbitsBackend::new(LnbitsConfig::new("https://lnbits.example", Network::Bitcoin, invoice_key))?;
/// # Ok::<(), l402::Error>(())
/// ```
#[derive(Clone)]
pub struct LnbitsBackend {
    server: LnbitsServer,
}

/// Where an LNbits server is, and which of its wallets is meant.
#[derive(Clone)]
#[must_use]
pub struct LnbitsConfig {
    url: String,
    network: Network,
    key: Zeroizing<String>,
    certificate: Option<PathBuf>,
}

impl LnbitsConfig {
    /// The server's address, the network of its node, and a key of the wallet:
    /// its invoice key ("Invoice/read key") to be paid, its admin key to pay.
    pub fn new(url: impl Into<String>, network: Network, key: impl Into<String>) -> Self {
        Self { url: url.into(), network, key: Zeroizing::new(key.into()), certificate: None }
    }

    /// The server's own certificate, a file in PEM form: no other is trusted
    /// then. Without it the server needs one that browsers trust.
    pub fn with_certificate(mut self, certificate: impl Into<PathBuf>) -> Self {
        self.certificate = Some(certificate.into());
        self
    }

    /// As the environment has it, with the key of this variable.
    pub(crate) fn from_env(variable: &str, key: &str) -> Result<Self, Error> {
        let url = env("LNBITS_URL", "the server's address, such as https://lnbits.example")?;
        let key = env(variable, key)?;
        let mut config = Self::new(&*url, env_network("LNBITS_NETWORK")?, &*key);
        if let Some(certificate) = env_opt("LNBITS_CERTIFICATE_FILE")? {
            config = config.with_certificate(&*certificate);
        }
        Ok(config)
    }
}

impl fmt::Debug for LnbitsConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LnbitsConfig")
            .field("url", &self.url)
            .field("network", &self.network)
            .field("key", &"[redacted]")
            .field("certificate", &self.certificate)
            .finish()
    }
}

/// A server that is asked with one key of a wallet. It knows no method, so that
/// receiving and paying share it.
#[derive(Clone)]
pub(crate) struct LnbitsServer {
    http: Http,
    base: String,
    key: HeaderValue,
    pub(crate) network: Network,
}

impl LnbitsServer {
    pub(crate) fn new(config: LnbitsConfig) -> Result<Self, Error> {
        let LnbitsConfig { url, network, key, certificate } = config;
        let base = base_url(&url)?;
        let trust = Trust::of(&base, certificate.as_deref())?;
        let key = secret_header("the key of the wallet", &key)?;
        Ok(Self { http: Http::new(trust, Reach::Any), base, key, network })
    }

    pub(crate) fn uri(&self, path: &str) -> Uri {
        format!("{}{path}", self.base).parse().expect("a path behind a URL is one")
    }

    pub(crate) async fn send(&self, ask: Ask, time_limit: Duration) -> Result<Answer, BackendError> {
        self.http.send(ask.header(API_KEY, self.key.clone()), time_limit).await
    }
}

impl LnbitsBackend {
    /// A backend on this wallet. The server is not asked yet.
    ///
    /// # Errors
    /// The address is no URL, the key cannot be sent, or the certificate
    /// cannot be read.
    pub fn new(config: LnbitsConfig) -> Result<Self, Error> {
        Ok(Self { server: LnbitsServer::new(config)? })
    }

    /// A backend on the wallet of the environment: `LNBITS_URL`,
    /// `LNBITS_INVOICE_KEY`, `LNBITS_CERTIFICATE_FILE` (where the server has a
    /// certificate of its own) and `LNBITS_NETWORK` (`bitcoin` unless set).
    ///
    /// # Errors
    /// A variable is missing, or as in [`new`](Self::new).
    pub fn from_env() -> Result<Self, Error> {
        Self::new(LnbitsConfig::from_env("LNBITS_INVOICE_KEY", "the invoice key of the wallet")?)
    }
}

#[derive(Serialize)]
struct Create<'a> {
    /// An invoice, not a payment.
    out: bool,
    amount: u64,
    unit: &'static str,
    memo: &'a str,
    expiry: u64,
}

#[derive(Deserialize)]
struct Created {
    payment_hash: String,
    bolt11: String,
}

#[derive(Deserialize)]
struct Found {
    paid: bool,
    status: Option<String>,
    /// Only of a payment of the wallet whose key was sent.
    details: Option<Details>,
}

#[derive(Deserialize)]
struct Details {
    payment_hash: String,
}

/// What a wallet has, which is nobody's business here.
#[derive(Deserialize)]
struct Wallet {
    #[serde(rename = "balance")]
    _balance: IgnoredAny,
}

/// What is read of an error, and never printed: a server may quote anything.
#[derive(Deserialize)]
struct Failure {
    detail: String,
}

#[async_trait]
impl PaymentBackend for LnbitsBackend {
    fn capabilities(&self) -> Capabilities {
        Capabilities::custodian(self.server.network)
            .with_look_up(LookUpBy::PaymentHash)
            .with_step_msat(STEP_MSAT)
    }

    async fn create_invoice(&self, ask: &InvoiceRequest) -> Result<Invoice, BackendError> {
        let create = Create {
            out: false,
            amount: ask.amount_msat / STEP_MSAT,
            unit: "sat",
            memo: shortened(&ask.description, MAX_MEMO),
            expiry: ask.expiry.as_secs(),
        };
        let answer = self
            .server
            .send(Ask::post(self.server.uri("/api/v1/payments")).json(&create), CREATE_TIME_LIMIT)
            .await?;
        if !answer.status.is_success() {
            return Err(error_of(&answer));
        }
        let created: Created = answer.json()?;
        Ok(Invoice::from_bolt11(created.bolt11).with_payment_hash(payment_hash(&created.payment_hash)?))
    }

    async fn look_up(
        &self,
        payment_hash: PaymentHash,
        _: Option<&str>,
    ) -> Result<InvoiceState, BackendError> {
        let path = format!("/api/v1/payments/{payment_hash}");
        let answer = self.server.send(Ask::get(self.server.uri(&path)), LOOK_UP_TIME_LIMIT).await?;
        if !answer.status.is_success() {
            return if is_unknown(&answer) { Ok(InvoiceState::Unknown) } else { Err(error_of(&answer)) };
        }
        let found: Found = answer.json()?;
        // Without a key that it knows, LNbits tells of any wallet's payments.
        let Some(details) = found.details else { return Err(wrong_key()) };
        if self::payment_hash(&details.payment_hash)? != payment_hash {
            return Err(BackendError::new(
                BackendErrorKind::InvalidResponse,
                "answer is about another payment",
            ));
        }
        Ok(match found.status.as_deref() {
            _ if found.paid => InvoiceState::Settled,
            // Expired, too.
            Some("failed") => InvoiceState::Closed,
            _ => InvoiceState::Open,
        })
    }

    /// Asks for the wallet that the key is of.
    async fn check_health(&self) -> Result<(), BackendError> {
        let answer =
            self.server.send(Ask::get(self.server.uri("/api/v1/wallet")), LOOK_UP_TIME_LIMIT).await?;
        if !answer.status.is_success() {
            return Err(error_of(&answer));
        }
        answer.json::<Wallet>().map(drop)
    }
}

fn payment_hash(text: &str) -> Result<PaymentHash, BackendError> {
    text.parse().map_err(|_| {
        BackendError::new(BackendErrorKind::InvalidResponse, "`payment_hash` is not 32 bytes in hex")
    })
}

/// Whether the wallet has no such payment.
pub(crate) fn is_unknown(answer: &Answer) -> bool {
    is_not_found(answer, "Payment does not exist.")
}

fn is_not_found(answer: &Answer, detail: &str) -> bool {
    answer.status == StatusCode::NOT_FOUND
        && answer.body_as::<Failure>().is_ok_and(|failure| failure.detail == detail)
}

pub(crate) fn wrong_key() -> BackendError {
    let what = "LNbits has no wallet with this key: an invoice key to be paid, an admin key to pay";
    BackendError::new(BackendErrorKind::Auth, what)
}

pub(crate) fn error_of(answer: &Answer) -> BackendError {
    if is_not_found(answer, "Wallet not found.") {
        return wrong_key();
    }
    // 520 for whatever it does not do; of the rest the text alone tells.
    let is_limit = |failure: Failure| failure.detail.starts_with("Invoice amount ");
    if answer.status.as_u16() == 520 && answer.body_as().is_ok_and(is_limit) {
        return BackendError::new(BackendErrorKind::Rejected, "amount is above the server's limit");
    }
    answer.error()
}

impl fmt::Debug for LnbitsServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LnbitsServer")
            .field("url", &self.base)
            .field("network", &self.network)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for LnbitsBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LnbitsBackend").field("server", &self.server).finish_non_exhaustive()
    }
}
