//! A Core Lightning node, as CLNRest shows it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::Uri;
use http::header::{HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::backend::config::{base_url, env, env_network, env_opt, read_file, secret_header};
use crate::backend::http::{Answer, Ask, Http, Reach};
use crate::backend::tls::Trust;
use crate::backend::{BackendError, BackendErrorKind, Network};
use crate::error::{Error, ErrorKind};

const RUNE: HeaderName = HeaderName::from_static("rune");

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

impl fmt::Debug for ClnNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClnNode")
            .field("url", &self.base)
            .field("network", &self.network)
            .finish_non_exhaustive()
    }
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
