//! phoenixd.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr as _;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, HeaderValue};
use http::{StatusCode, Uri};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::call::{CREATE_TIME_LIMIT, FIND_TIME_LIMIT, create_or_find};
use super::config::{base_url, env, env_network, env_opt, secret_header};
use super::http::{Answer, Ask, Http, Reach};
use super::tls::Trust;
use super::{
    BackendError, BackendErrorKind, Capabilities, Invoice, InvoiceRequest, InvoiceState, LookUpBy, Network,
    PaymentBackend,
};
use crate::error::{Error, ErrorKind};
use crate::preimage::PaymentHash;

/// How long the node may take to say what became of an invoice.
const LOOK_UP_TIME_LIMIT: Duration = Duration::from_secs(5);

/// Longest description that it takes, in UTF-16 units.
const MAX_DESCRIPTION: usize = 128;

/// Makes invoices on a phoenixd node. It bills whole satoshis: prices are
/// rounded up to the next one. A preimage proves a payment.
///
/// The limited-access password (`http-password-limited-access` in
/// `phoenix.conf`) is enough, and the one to use: it can spend nothing. The
/// node speaks plain HTTP, so keep it on the same machine or network, or behind
/// a proxy with TLS. Until it has a channel it takes small payments as credit
/// for the fee of opening one.
///
/// Every invoice has an `externalId` of its own, `l402-` and the id of its
/// token: where an answer is lost, the invoice is found by it and not made
/// again. Clones share their connections.
///
/// ```no_run
/// use l402::{Network, PhoenixdBackend, PhoenixdConfig};
///
/// # let password = "";
/// let node = PhoenixdBackend::new(PhoenixdConfig::new("http://127.0.0.1:9740", Network::Bitcoin, password))?;
/// # Ok::<(), l402::Error>(())
/// ```
#[derive(Clone)]
pub struct PhoenixdBackend {
    node: PhoenixdNode,
}

/// Where a phoenixd node is, and what it is told of us.
#[derive(Clone)]
#[must_use]
pub struct PhoenixdConfig {
    url: String,
    network: Network,
    password: Zeroizing<String>,
    certificate: Option<PathBuf>,
}

impl PhoenixdConfig {
    /// The node's address (port 9740 by default), its network, and the
    /// password that it is shown.
    pub fn new(url: impl Into<String>, network: Network, password: impl Into<String>) -> Self {
        Self { url: url.into(), network, password: Zeroizing::new(password.into()), certificate: None }
    }

    /// The own certificate of the proxy before the node, a file in PEM form: no
    /// other is trusted then. Without it the proxy needs one that browsers trust.
    pub fn with_certificate(mut self, certificate: impl Into<PathBuf>) -> Self {
        self.certificate = Some(certificate.into());
        self
    }

    /// As the environment has it, with this password.
    pub(crate) fn from_env(password: &str) -> Result<Self, Error> {
        let url = env("PHOENIXD_URL", "the node's address, such as http://127.0.0.1:9740")?;
        let password = env("PHOENIXD_PASSWORD", password)?;
        let mut config = Self::new(&*url, env_network("PHOENIXD_NETWORK")?, &*password);
        if let Some(certificate) = env_opt("PHOENIXD_CERTIFICATE_FILE")? {
            config = config.with_certificate(&*certificate);
        }
        Ok(config)
    }
}

impl fmt::Debug for PhoenixdConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PhoenixdConfig")
            .field("url", &self.url)
            .field("network", &self.network)
            .field("password", &"[redacted]")
            .field("certificate", &self.certificate)
            .finish()
    }
}

/// A node that is asked with one password. It knows no method, so that
/// receiving and paying share it.
#[derive(Clone)]
pub(crate) struct PhoenixdNode {
    http: Http,
    base: String,
    authorization: HeaderValue,
    pub(crate) network: Network,
}

impl PhoenixdNode {
    pub(crate) fn new(config: PhoenixdConfig) -> Result<Self, Error> {
        let PhoenixdConfig { url, network, password, certificate } = config;
        let password = password.trim();
        if password.is_empty() {
            return Err(Error::new(ErrorKind::Backend, "the password of phoenixd is empty"));
        }
        let base = base_url(&url)?;
        let trust = Trust::of(&base, certificate.as_deref())?;
        let user_and_password = Zeroizing::new(format!(":{password}"));
        let encoded = Zeroizing::new(STANDARD.encode(&*user_and_password));
        Ok(Self {
            http: Http::new(trust, Reach::Any),
            base,
            authorization: secret_header("the password", &Zeroizing::new(format!("Basic {}", *encoded)))?,
            network,
        })
    }

    pub(crate) fn uri(&self, path: &str) -> Uri {
        format!("{}{path}", self.base).parse().expect("a path behind a URL is one")
    }

    pub(crate) async fn send(&self, ask: Ask, time_limit: Duration) -> Result<Answer, BackendError> {
        self.http.send(ask.header(AUTHORIZATION, self.authorization.clone()), time_limit).await
    }
}

impl PhoenixdBackend {
    /// A backend on this node. The certificate is read now; the node is not
    /// asked yet.
    ///
    /// # Errors
    /// The address is no URL, the password is empty, or the certificate cannot
    /// be read or is none.
    pub fn new(config: PhoenixdConfig) -> Result<Self, Error> {
        Ok(Self { node: PhoenixdNode::new(config)? })
    }

    /// A backend on the node of the environment: `PHOENIXD_URL`,
    /// `PHOENIXD_PASSWORD`, `PHOENIXD_CERTIFICATE_FILE` (where a proxy before it
    /// has a certificate of its own) and `PHOENIXD_NETWORK` (`bitcoin` unless set).
    ///
    /// # Errors
    /// A variable is missing, or as in [`new`](Self::new).
    pub fn from_env() -> Result<Self, Error> {
        Self::new(PhoenixdConfig::from_env("the node's http-password-limited-access")?)
    }

    async fn create(&self, ask: &InvoiceRequest, external_id: &str) -> Result<Invoice, BackendError> {
        let form = [
            ("amountSat", &*ask.amount_msat.div_ceil(1_000).to_string()),
            ("description", in_utf16(&ask.description, MAX_DESCRIPTION)),
            ("expirySeconds", &*ask.expiry.as_secs().to_string()),
            ("externalId", external_id),
        ];
        let ask = Ask::post(self.node.uri("/createinvoice")).form(&form);
        let created: Created = self.node.send(ask, CREATE_TIME_LIMIT).await?.json()?;
        invoice(created.serialized, &created.payment_hash)
    }

    /// The unpaid invoice of this id. One that is paid was sold to somebody.
    async fn find(&self, external_id: &str) -> Result<Option<Invoice>, BackendError> {
        // Without `all` it lists only what was paid.
        let path = format!("/payments/incoming?all=true&externalId={external_id}");
        let answer = self.node.send(Ask::get(self.node.uri(&path)), FIND_TIME_LIMIT).await?;
        let found = answer.json::<Vec<Incoming>>()?.into_iter().find(|found| {
            found.external_id.as_deref() == Some(external_id) && !found.is_paid && !found.is_expired
        });
        let Some(Incoming { payment_hash, invoice: Some(bolt11), .. }) = found else { return Ok(None) };
        invoice(bolt11, &payment_hash).map(Some)
    }
}

fn invoice(bolt11: String, payment_hash: &str) -> Result<Invoice, BackendError> {
    let hash = PaymentHash::from_str(payment_hash).map_err(|_| {
        BackendError::new(BackendErrorKind::InvalidResponse, "`paymentHash` is not 32 bytes in hex")
    })?;
    Ok(Invoice::from_bolt11(bolt11).with_payment_hash(hash))
}

/// The beginning of a text, of at most `max` UTF-16 units: phoenixd counts
/// what Kotlin calls characters.
fn in_utf16(text: &str, max: usize) -> &str {
    let mut units = 0;
    let end = text.char_indices().find(|(_, char)| {
        units += char.len_utf16();
        units > max
    });
    end.map_or(text, |(end, _)| &text[..end])
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Created {
    payment_hash: String,
    serialized: String,
}

/// What is read of a payment. The answer holds the preimage too, before the
/// payment as after it: that is left where it is.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Incoming {
    payment_hash: String,
    external_id: Option<String>,
    invoice: Option<String>,
    is_paid: bool,
    /// Not told by older versions.
    #[serde(default)]
    is_expired: bool,
}

#[derive(Deserialize)]
struct Info {
    #[serde(rename = "nodeId")]
    _node_id: String,
}

#[async_trait]
impl PaymentBackend for PhoenixdBackend {
    fn capabilities(&self) -> Capabilities {
        Capabilities::node(self.node.network).with_look_up(LookUpBy::PaymentHash).with_step_msat(1_000)
    }

    async fn create_invoice(&self, ask: &InvoiceRequest) -> Result<Invoice, BackendError> {
        let external_id = format!("l402-{}", ask.token_id);
        // It would make a second invoice of the same id: look, and never ask twice.
        create_or_find(self.create(ask, &external_id), self.find(&external_id)).await
    }

    async fn look_up(
        &self,
        payment_hash: PaymentHash,
        _: Option<&str>,
    ) -> Result<InvoiceState, BackendError> {
        let payment_hash = payment_hash.to_string();
        let path = format!("/payments/incoming/{payment_hash}");
        let answer = self.node.send(Ask::get(self.node.uri(&path)), LOOK_UP_TIME_LIMIT).await?;
        if is_unknown(&answer) {
            return Ok(InvoiceState::Unknown);
        }
        let found: Incoming = answer.json()?;
        if found.payment_hash != payment_hash {
            let what = "answer is about another payment";
            return Err(BackendError::new(BackendErrorKind::InvalidResponse, what));
        }
        Ok(match found {
            Incoming { is_paid: true, .. } => InvoiceState::Settled,
            Incoming { is_expired: true, .. } => InvoiceState::Closed,
            _ => InvoiceState::Open,
        })
    }

    /// Asks who the node is, which the limited-access password may.
    async fn check_health(&self) -> Result<(), BackendError> {
        let answer = self.node.send(Ask::get(self.node.uri("/getinfo")), LOOK_UP_TIME_LIMIT).await?;
        answer.json::<Info>().map(drop)
    }
}

/// Whether it has no such payment. Whatever else answers 404 is not phoenixd, or
/// not at this path.
pub(crate) fn is_unknown(answer: &Answer) -> bool {
    answer.status == StatusCode::NOT_FOUND && answer.is_text("Not found")
}

impl fmt::Debug for PhoenixdNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PhoenixdNode")
            .field("url", &self.base)
            .field("network", &self.network)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for PhoenixdBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PhoenixdBackend").field("node", &self.node).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_is_cut_between_characters_after_128_utf_16_units() {
        for (text, kept) in [
            (String::new(), 0),
            ("a".repeat(128), 128),
            ("a".repeat(129), 128),
            ("é".repeat(200), 128 * 2),
            ("⚡".repeat(200), 128 * 3),
            ("🦀".repeat(64), 64 * 4),
            ("🦀".repeat(200), 64 * 4),
            (format!("a{}", "🦀".repeat(200)), 1 + 63 * 4),
        ] {
            let cut = in_utf16(&text, MAX_DESCRIPTION);
            assert_eq!(cut.len(), kept);
            assert!(text.starts_with(cut) && cut.encode_utf16().count() <= MAX_DESCRIPTION);
        }
    }
}
