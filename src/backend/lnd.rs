//! LND, over its REST API.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Uri;
use http::header::{HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::config::{base_url, env, env_flag, env_network, env_opt, read_file, secret_header};
use super::http::{Answer, Ask, Http, Reach};
use super::tls::Trust;
use super::{
    BackendError, BackendErrorKind, Capabilities, Invoice, InvoiceRequest, InvoiceState, LookUpBy, Network,
    PaymentBackend, shortened,
};
use crate::error::{Error, ErrorKind};
use crate::preimage::PaymentHash;

/// How long the node may take to make an invoice, and to say what became of one.
const CREATE_TIME_LIMIT: Duration = Duration::from_secs(10);
const LOOK_UP_TIME_LIMIT: Duration = Duration::from_secs(5);

/// Longest description of a BOLT 11 invoice, in bytes.
const MAX_MEMO: usize = 639;

const MACAROON: HeaderName = HeaderName::from_static("grpc-metadata-macaroon");

/// Makes invoices on an LND node, over its REST API. Amounts are exact to the
/// msat, and a preimage proves a payment.
///
/// The node's `invoice.macaroon` is enough, and the one to use: it can spend
/// nothing. Clones share their connections.
///
/// ```no_run
/// use l402::{LndBackend, LndConfig, Network};
///
/// let node = LndBackend::new(
///     LndConfig::new("https://127.0.0.1:8080", Network::Bitcoin, "/var/lib/lnd/invoice.macaroon")
///         .with_certificate("/var/lib/lnd/tls.cert"),
/// )?;
/// # Ok::<(), l402::Error>(())
/// ```
#[derive(Clone)]
pub struct LndBackend {
    node: LndNode,
    private_channels: bool,
}

/// Where an LND node is, and what it is told of us.
#[derive(Clone, Debug)]
#[must_use]
pub struct LndConfig {
    url: String,
    network: Network,
    macaroon: PathBuf,
    certificate: Option<PathBuf>,
    private_channels: bool,
}

impl LndConfig {
    /// The node's REST address (`restlisten`, port 8080 by default), its
    /// network, and the file of the macaroon that it is shown.
    pub fn new(url: impl Into<String>, network: Network, macaroon: impl Into<PathBuf>) -> Self {
        let (url, macaroon) = (url.into(), macaroon.into());
        Self { url, network, macaroon, certificate: None, private_channels: false }
    }

    /// The node's own certificate (`tls.cert`), in PEM form: no other is
    /// trusted then. Without it the node needs one that browsers trust.
    pub fn with_certificate(mut self, certificate: impl Into<PathBuf>) -> Self {
        self.certificate = Some(certificate.into());
        self
    }

    /// Invoices tell the way through channels that are not announced, which a
    /// node that has no other needs to be paid. They tell of those channels too.
    pub fn with_private_channels(mut self) -> Self {
        self.private_channels = true;
        self
    }

    /// As the environment has it, with a macaroon of this kind.
    pub(crate) fn from_env(macaroon: &str) -> Result<Self, Error> {
        let url = env("LND_URL", "the node's REST address, such as https://127.0.0.1:8080")?;
        let macaroon = env("LND_MACAROON_FILE", macaroon)?;
        let mut config = Self::new(&*url, env_network("LND_NETWORK")?, &*macaroon);
        if let Some(certificate) = env_opt("LND_CERTIFICATE_FILE")? {
            config = config.with_certificate(&*certificate);
        }
        if env_flag("LND_PRIVATE_CHANNELS")? {
            config = config.with_private_channels();
        }
        Ok(config)
    }
}

/// A node that is asked over REST, with one macaroon. It knows no method, so
/// that receiving and paying share it.
#[derive(Clone)]
pub(crate) struct LndNode {
    http: Http,
    base: String,
    macaroon: HeaderValue,
    pub(crate) network: Network,
}

impl LndNode {
    pub(crate) fn new(config: LndConfig) -> Result<Self, Error> {
        let LndConfig { url, network, macaroon, certificate, .. } = config;
        let base = base_url(&url)?;
        let trust = Trust::of(&base, certificate.as_deref())?;
        let macaroon = read_macaroon(&macaroon)?;
        Ok(Self { http: Http::new(trust, Reach::Any), base, macaroon, network })
    }

    pub(crate) fn uri(&self, path: &str) -> Uri {
        format!("{}{path}", self.base).parse().expect("a path behind a URL is one")
    }

    async fn send(&self, ask: Ask, time_limit: Duration) -> Result<Answer, BackendError> {
        self.http.send(ask.header(MACAROON, self.macaroon.clone()), time_limit).await
    }

    /// As of a method that answers a stream of lines: reads the first.
    #[cfg(feature = "client")]
    pub(crate) async fn send_for_line(&self, ask: Ask, time_limit: Duration) -> Result<Answer, BackendError> {
        self.http.send_for_line(ask.header(MACAROON, self.macaroon.clone()), time_limit).await
    }
}

impl LndBackend {
    /// A backend on this node. Files are read now; the node is not asked yet.
    ///
    /// # Errors
    /// The address is no URL, or a file cannot be read or is not what it should be.
    pub fn new(config: LndConfig) -> Result<Self, Error> {
        let private_channels = config.private_channels;
        Ok(Self { node: LndNode::new(config)?, private_channels })
    }

    /// A backend on the node of the environment: `LND_URL`,
    /// `LND_MACAROON_FILE`, `LND_CERTIFICATE_FILE` (where the node has a
    /// certificate of its own), `LND_NETWORK` (`bitcoin` unless set) and
    /// `LND_PRIVATE_CHANNELS` (`true` where the node has no other).
    ///
    /// # Errors
    /// A variable is missing, or as in [`new`](Self::new).
    pub fn from_env() -> Result<Self, Error> {
        Self::new(LndConfig::from_env("the path of the node's invoice.macaroon")?)
    }
}

/// The macaroon of a file, binary as LND writes it, in hex as LND reads it.
fn read_macaroon(path: &Path) -> Result<HeaderValue, Error> {
    let bytes = read_file(path, "the macaroon")?;
    // Its version, which neither hex nor JSON begins with.
    if bytes.first() != Some(&2) {
        let what = format!("{} is no macaroon in the binary form that LND writes", path.display());
        return Err(Error::new(ErrorKind::Backend, what));
    }
    let hex = Zeroizing::new(hex::encode(&*bytes));
    secret_header(&format!("the macaroon of {}", path.display()), &hex)
}

#[derive(Serialize)]
struct Create<'a> {
    /// 64-bit integers are strings in LND's JSON.
    value_msat: String,
    memo: &'a str,
    expiry: String,
    private: bool,
}

#[derive(Deserialize)]
struct Created {
    r_hash: String,
    payment_request: String,
}

#[derive(Deserialize)]
struct Found {
    r_hash: String,
    state: State,
}

#[derive(Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum State {
    Open,
    Settled,
    Canceled,
    Accepted,
}

/// What is read of an error, and never printed: a node may quote anything. In
/// an answer that is a stream it stands in an object.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct LndFailure {
    #[serde(alias = "grpc_code")]
    pub(crate) code: i64,
    pub(crate) message: String,
}

impl LndFailure {
    pub(crate) fn of(answer: &Answer) -> Self {
        #[derive(Deserialize)]
        struct Nested {
            error: LndFailure,
        }
        answer.body_as().map(|Nested { error }| error).or_else(|_| answer.body_as()).unwrap_or_default()
    }
}

#[async_trait]
impl PaymentBackend for LndBackend {
    fn capabilities(&self) -> Capabilities {
        Capabilities::node(self.node.network).with_look_up(LookUpBy::PaymentHash)
    }

    async fn create_invoice(&self, ask: &InvoiceRequest) -> Result<Invoice, BackendError> {
        let create = Create {
            value_msat: ask.amount_msat.to_string(),
            memo: shortened(&ask.description, MAX_MEMO),
            expiry: ask.expiry.as_secs().to_string(),
            private: self.private_channels,
        };
        let answer =
            self.node.send(Ask::post(self.node.uri("/v1/invoices")).json(&create), CREATE_TIME_LIMIT).await?;
        if !answer.status.is_success() {
            return Err(error_of(&answer));
        }
        let created: Created = answer.json()?;
        Ok(Invoice::from_bolt11(created.payment_request).with_payment_hash(read_hash(&created.r_hash)?))
    }

    async fn look_up(
        &self,
        payment_hash: PaymentHash,
        _: Option<&str>,
    ) -> Result<InvoiceState, BackendError> {
        let path = format!("/v1/invoice/{}", hex::encode(payment_hash.as_bytes()));
        let answer = self.node.send(Ask::get(self.node.uri(&path)), LOOK_UP_TIME_LIMIT).await?;
        if !answer.status.is_success() {
            return if is_unknown(&answer) { Ok(InvoiceState::Unknown) } else { Err(error_of(&answer)) };
        }
        let found: Found = answer.json()?;
        if read_hash(&found.r_hash)? != payment_hash {
            let what = "answer is about another invoice";
            return Err(BackendError::new(BackendErrorKind::InvalidResponse, what));
        }
        Ok(match found.state {
            State::Open | State::Accepted => InvoiceState::Open,
            State::Settled => InvoiceState::Settled,
            State::Canceled => InvoiceState::Closed,
        })
    }

    /// Looks up an invoice that cannot be, which takes no permission beyond
    /// those of `invoice.macaroon`.
    async fn check_health(&self) -> Result<(), BackendError> {
        self.look_up([0; 32].into(), None).await.map(drop)
    }
}

fn read_hash(text: &str) -> Result<PaymentHash, BackendError> {
    let hash = STANDARD.decode(text).ok().and_then(|hash| <[u8; 32]>::try_from(hash).ok());
    hash.map(PaymentHash::from_bytes).ok_or_else(|| {
        BackendError::new(BackendErrorKind::InvalidResponse, "`r_hash` is not 32 bytes in base64")
    })
}

/// Whether LND answers that it has no such invoice. Only the text tells: the
/// code is 2 in older versions, and 5 for a path that it does not know, too.
fn is_unknown(answer: &Answer) -> bool {
    let message = LndFailure::of(answer).message;
    message.contains("unable to locate invoice") || message.contains("there are no existing invoices")
}

/// LND answers 500 to a macaroon that it does not take, and while it is locked.
pub(crate) fn error_of(answer: &Answer) -> BackendError {
    let message = LndFailure::of(answer).message;
    let says = |texts: &[&str]| texts.iter().any(|text| message.contains(text));
    if says(&["verification failed", "cannot get macaroon", "expected 1 macaroon", "permission denied"]) {
        return BackendError::new(BackendErrorKind::Auth, "LND does not take the macaroon");
    }
    if says(&["wallet locked"]) {
        return BackendError::new(BackendErrorKind::Backend, "LND's wallet is locked: unlock it");
    }
    answer.error()
}

impl fmt::Debug for LndNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LndNode")
            .field("url", &self.base)
            .field("network", &self.network)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for LndBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LndBackend").field("node", &self.node).finish_non_exhaustive()
    }
}
