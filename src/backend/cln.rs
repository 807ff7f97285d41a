//! Core Lightning, over CLNRest.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::Uri;
use http::header::{HeaderName, HeaderValue};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::call::create_or_find;
use super::config::{base_url, env, env_network, env_opt, read_file, secret_header};
use super::http::{Answer, Ask, Http, Reach};
use super::tls::Trust;
use super::{
    BackendError, BackendErrorKind, Capabilities, Invoice, InvoiceRequest, InvoiceState, LookUpBy, Network,
    PaymentBackend, shortened,
};
use crate::error::{Error, ErrorKind};
use crate::preimage::PaymentHash;

/// How long the node may take to make an invoice, to find one that it may have
/// made, and to say what became of one. The first two stay below the 10 s that
/// a gate waits.
const CREATE_TIME_LIMIT: Duration = Duration::from_secs(6);
const FIND_TIME_LIMIT: Duration = Duration::from_secs(3);
const LOOK_UP_TIME_LIMIT: Duration = Duration::from_secs(5);

/// Longest description of a BOLT 11 invoice, in bytes.
const MAX_DESCRIPTION: usize = 639;

const RUNE: HeaderName = HeaderName::from_static("rune");

/// Makes invoices on a Core Lightning node, over CLNRest. Amounts are exact to
/// the msat, and a preimage proves a payment.
///
/// It calls `invoice` and `listinvoices`, so give it a rune for those alone,
/// which can spend nothing:
///
/// ```sh
/// lightning-cli createrune restrictions='[["method=invoice","method=listinvoices"]]'
/// ```
///
/// Every invoice has a label of its own, `l402-` and the id of its token: where
/// an answer is lost, the invoice is found by it and not made again. Clones
/// share their connections.
///
/// ```no_run
/// use l402::{ClnBackend, ClnConfig, Network};
///
/// # let rune = "";
/// let node = ClnBackend::new(
///     ClnConfig::new("https://127.0.0.1:3010", Network::Bitcoin, rune)
///         .with_certificate("/var/lib/cln/bitcoin/server.pem"),
/// )?;
/// # Ok::<(), l402::Error>(())
/// ```
#[derive(Clone)]
pub struct ClnBackend {
    node: ClnNode,
    warnings: Arc<Mutex<Vec<&'static str>>>,
}

/// Where a Core Lightning node is, and what it is told of us.
#[derive(Clone)]
#[must_use]
pub struct ClnConfig {
    url: String,
    network: Network,
    rune: Zeroizing<String>,
    certificate: Option<PathBuf>,
}

impl ClnConfig {
    /// The address of the node's CLNRest (`clnrest-port`), its network, and
    /// the rune that it is shown.
    pub fn new(url: impl Into<String>, network: Network, rune: impl Into<String>) -> Self {
        Self { url: url.into(), network, rune: Zeroizing::new(rune.into()), certificate: None }
    }

    /// The node's own certificate (`server.pem`) or the authority that signed
    /// it (`ca.pem`), in PEM form: no other is trusted then. With `ca.pem` the
    /// address has to be a name in the certificate: `localhost` or `cln`,
    /// unless the node was told another. Without it the node needs a
    /// certificate that browsers trust.
    pub fn with_certificate(mut self, certificate: impl Into<PathBuf>) -> Self {
        self.certificate = Some(certificate.into());
        self
    }

    /// As the environment has it, with a rune for these methods.
    pub(crate) fn from_env(methods: &str) -> Result<Self, Error> {
        let url = env("CLN_URL", "the address of the node's CLNRest, such as https://127.0.0.1:3010")?;
        let rune = match (env_opt("CLN_RUNE")?, env_opt("CLN_RUNE_FILE")?) {
            (Some(_), Some(_)) => {
                return Err(Error::new(ErrorKind::Backend, "set CLN_RUNE or CLN_RUNE_FILE, not both"));
            }
            (None, Some(path)) => read_rune_file(Path::new(&*path))?,
            (Some(rune), None) => rune,
            (None, None) => env("CLN_RUNE", &format!("a rune for the methods {methods}"))?,
        };
        let mut config = Self::new(&*url, env_network("CLN_NETWORK")?, &*rune);
        if let Some(certificate) = env_opt("CLN_CERTIFICATE_FILE")? {
            config = config.with_certificate(&*certificate);
        }
        Ok(config)
    }
}

impl fmt::Debug for ClnConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClnConfig")
            .field("url", &self.url)
            .field("network", &self.network)
            .field("rune", &"[redacted]")
            .field("certificate", &self.certificate)
            .finish()
    }
}

/// A node that is asked over CLNRest, with one rune. It knows no method, so
/// that receiving and paying share it.
#[derive(Clone)]
pub(crate) struct ClnNode {
    http: Http,
    base: String,
    rune: HeaderValue,
    pub(crate) network: Network,
}

impl ClnNode {
    pub(crate) fn new(config: ClnConfig) -> Result<Self, Error> {
        let ClnConfig { url, network, rune, certificate } = config;
        let base = base_url(&url)?;
        let trust = Trust::of(&base, certificate.as_deref())?;
        let rune = read_rune(&rune, "the rune")?;
        Ok(Self { http: Http::new(trust, Reach::Any), base, rune, network })
    }

    /// What the node answers, errors too.
    pub(crate) async fn ask(
        &self,
        method: &str,
        parameters: &impl Serialize,
        time_limit: Duration,
    ) -> Result<Answer, BackendError> {
        let uri: Uri = format!("{}/v1/{method}", self.base).parse().expect("a path behind a URL is one");
        let ask = Ask::post(uri).header(RUNE, self.rune.clone()).json(parameters);
        self.http.send(ask, time_limit).await
    }

    pub(crate) async fn call(
        &self,
        method: &str,
        parameters: &impl Serialize,
        time_limit: Duration,
    ) -> Result<Answer, BackendError> {
        let answer = self.ask(method, parameters, time_limit).await?;
        if answer.status.is_success() { Ok(answer) } else { Err(error_of(&answer)) }
    }
}

impl ClnBackend {
    /// A backend on this node. The certificate is read now; the node is not
    /// asked yet.
    ///
    /// # Errors
    /// The address is no URL, the rune is none, or the certificate cannot be
    /// read or is none.
    pub fn new(config: ClnConfig) -> Result<Self, Error> {
        Ok(Self { node: ClnNode::new(config)?, warnings: Arc::default() })
    }

    /// A backend on the node of the environment: `CLN_URL`, `CLN_RUNE` or
    /// `CLN_RUNE_FILE` (a file that holds the rune alone),
    /// `CLN_CERTIFICATE_FILE` (where the node has a certificate of its own) and
    /// `CLN_NETWORK` (`bitcoin` unless set).
    ///
    /// # Errors
    /// A variable is missing, or as in [`new`](Self::new).
    pub fn from_env() -> Result<Self, Error> {
        Self::new(ClnConfig::from_env("invoice and listinvoices")?)
    }

    /// What the node warned of when it made its latest invoice: that its
    /// channels may be unable to take the payment. Empty where it warned of
    /// nothing, or has made none yet.
    ///
    /// These are the names of Core Lightning's `invoice`: `warning_capacity`
    /// (too little incoming capacity), `warning_offline`, `warning_deadends`
    /// and `warning_private_unused` (there would be enough, but for channels
    /// that are offline, lead nowhere or are unannounced), and `warning_mpp`
    /// (enough, for a payer who pays in parts). An invoice is sold all the
    /// same; keep a clone of the backend, and show this where you watch the
    /// server.
    pub fn warnings(&self) -> Vec<&'static str> {
        self.warnings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn create(&self, new: &New<'_>) -> Result<Invoice, BackendError> {
        let answer = self.node.call("invoice", new, CREATE_TIME_LIMIT).await?;
        let created: Created = answer.json()?;
        *self.warnings.lock().unwrap_or_else(PoisonError::into_inner) = created.warnings();
        invoice(created.bolt11, &created.payment_hash)
    }

    /// The unpaid invoice of this label. One that is paid was sold to somebody.
    async fn find(&self, label: &str) -> Result<Option<Invoice>, BackendError> {
        let answer = self.node.call("listinvoices", &ByLabel { label }, FIND_TIME_LIMIT).await?;
        let found = answer.json::<Listed>()?.invoices.into_iter().find(|found| found.label == label);
        let Some(Found { payment_hash, status: Status::Unpaid, bolt11: Some(bolt11), .. }) = found else {
            return Ok(None);
        };
        invoice(bolt11, &payment_hash).map(Some)
    }
}

fn invoice(bolt11: String, payment_hash: &str) -> Result<Invoice, BackendError> {
    let hash = PaymentHash::from_str(payment_hash).map_err(|_| {
        BackendError::new(BackendErrorKind::InvalidResponse, "`payment_hash` is not 32 bytes in hex")
    })?;
    Ok(Invoice::from_bolt11(bolt11).with_payment_hash(hash))
}

/// A rune is base64url of a 32-byte code and what it restricts.
fn read_rune(text: &str, what: &str) -> Result<HeaderValue, Error> {
    const ANY_PADDING: GeneralPurposeConfig = GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true);
    let text = text.trim();
    let decoded = GeneralPurpose::new(&URL_SAFE, ANY_PADDING).decode(text).map(Zeroizing::new);
    if !decoded.is_ok_and(|bytes| bytes.len() >= 32) {
        let hint = "give the `rune` of what `createrune` answers, and nothing else";
        return Err(Error::new(ErrorKind::Backend, format!("{what} is not one: {hint}")));
    }
    secret_header(what, text)
}

fn read_rune_file(path: &Path) -> Result<Zeroizing<String>, Error> {
    let bytes = read_file(path, "the rune")?;
    let rune = std::str::from_utf8(&bytes).unwrap_or_default();
    read_rune(rune, &format!("the rune of {}", path.display()))?;
    Ok(Zeroizing::new(rune.to_owned()))
}

#[derive(Serialize)]
struct New<'a> {
    amount_msat: u64,
    label: &'a str,
    description: String,
    expiry: u64,
}

#[derive(Deserialize)]
#[allow(clippy::struct_field_names)] // the node's names
struct Created {
    bolt11: String,
    payment_hash: String,
    warning_capacity: Option<IgnoredAny>,
    warning_offline: Option<IgnoredAny>,
    warning_deadends: Option<IgnoredAny>,
    warning_private_unused: Option<IgnoredAny>,
    warning_mpp: Option<IgnoredAny>,
}

impl Created {
    fn warnings(&self) -> Vec<&'static str> {
        [
            ("warning_capacity", self.warning_capacity),
            ("warning_offline", self.warning_offline),
            ("warning_deadends", self.warning_deadends),
            ("warning_private_unused", self.warning_private_unused),
            ("warning_mpp", self.warning_mpp),
        ]
        .into_iter()
        .filter_map(|(name, warned)| warned.map(|_| name))
        .collect()
    }
}

#[derive(Serialize)]
struct ByLabel<'a> {
    label: &'a str,
}

#[derive(Serialize)]
struct ByHash {
    payment_hash: String,
}

#[derive(Deserialize)]
struct Listed {
    invoices: Vec<Found>,
}

#[derive(Deserialize)]
struct Found {
    label: String,
    payment_hash: String,
    status: Status,
    bolt11: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    Unpaid,
    Paid,
    Expired,
}

/// What is read of an error: flat, and nested in older versions. The message is
/// never printed, because a node may quote anything.
#[derive(Deserialize)]
#[serde(untagged)]
enum Failure {
    Nested { error: Code },
    Flat(Code),
}

#[derive(Deserialize)]
struct Code {
    code: i64,
}

/// The code of an error.
pub(crate) fn code_of(answer: &Answer) -> Option<i64> {
    let (Failure::Nested { error: Code { code } } | Failure::Flat(Code { code })) = answer.body_as().ok()?;
    Some(code)
}

/// The error that the node's code tells, or else the status (lightningd's
/// `common/jsonrpc_errors.h`).
pub(crate) fn error_of(answer: &Answer) -> BackendError {
    let Some(code) = code_of(answer) else { return answer.error() };
    let (kind, cause) = match code {
        // An answer of ours that was lost: the invoice is looked for by its label.
        900 => (BackendErrorKind::InvalidResponse, "the label is taken"),
        1501..=1503 => (BackendErrorKind::Auth, "Core Lightning does not take the rune"),
        -32602 => (BackendErrorKind::Rejected, "Core Lightning does not take the parameters"),
        _ => return answer.error(),
    };
    BackendError::new(kind, cause)
}

#[async_trait]
impl PaymentBackend for ClnBackend {
    fn capabilities(&self) -> Capabilities {
        Capabilities::node(self.node.network).with_look_up(LookUpBy::PaymentHash)
    }

    async fn create_invoice(&self, ask: &InvoiceRequest) -> Result<Invoice, BackendError> {
        let label = format!("l402-{}", ask.token_id);
        let new = New {
            amount_msat: ask.amount_msat,
            label: &label,
            // lightningd takes no `\u`, which JSON would make of these.
            description: shortened(&ask.description, MAX_DESCRIPTION).replace(char::is_control, " "),
            expiry: ask.expiry.as_secs(),
        };
        create_or_find(self.create(&new), self.find(&label)).await
    }

    async fn look_up(
        &self,
        payment_hash: PaymentHash,
        _: Option<&str>,
    ) -> Result<InvoiceState, BackendError> {
        let payment_hash = payment_hash.to_string();
        let asked = ByHash { payment_hash: payment_hash.clone() };
        let answer = self.node.call("listinvoices", &asked, LOOK_UP_TIME_LIMIT).await?;
        let found = answer.json::<Listed>()?.invoices.into_iter().find(|it| it.payment_hash == payment_hash);
        Ok(match found.map(|found| found.status) {
            None => InvoiceState::Unknown,
            Some(Status::Unpaid) => InvoiceState::Open,
            Some(Status::Paid) => InvoiceState::Settled,
            Some(Status::Expired) => InvoiceState::Closed,
        })
    }

    /// Looks up an invoice that cannot be, which the rune for invoices may.
    async fn check_health(&self) -> Result<(), BackendError> {
        self.look_up([0; 32].into(), None).await.map(drop)
    }
}

impl fmt::Debug for ClnNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClnNode")
            .field("url", &self.base)
            .field("network", &self.network)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for ClnBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClnBackend").field("node", &self.node).finish_non_exhaustive()
    }
}
