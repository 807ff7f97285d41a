//! Calls of a wallet's methods over a relay (NIP-47): encrypted, signed, matched
//! with their answers. It knows no method, so that receiving and paying share it.

use std::sync::Arc;
use std::time::Duration;

use secp256k1::{Keypair, XOnlyPublicKey};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;

use super::event::{Event, REQUEST};
use super::link::Link;
use super::nip44::SharedKey;
use super::uri::{Connection, Relay};
use crate::backend::tls::Trust;
use crate::backend::{BackendError, BackendErrorKind};
use crate::clock::{Clock as _, SystemClock, unix};
use crate::entropy::{SystemEntropy, random};

/// How long one relay may take to be ready.
const CONNECT_TIME_LIMIT: Duration = Duration::from_secs(3);
/// How long no relay is tried after all of them failed: at first, doubled every
/// time, and at most.
const MIN_BACK_OFF: Duration = Duration::from_millis(250);
const MAX_BACK_OFF: Duration = Duration::from_secs(5);
/// Within which time a wallet may act on a request, unless it is told another.
const EXPIRATION: Duration = Duration::from_secs(60);
/// The one encryption that is spoken.
const ENCRYPTION: &str = "nip44_v2";

/// The client of one connection URI. Clones share their link to a relay, which
/// ends with the last of them.
#[derive(Clone)]
pub(crate) struct Client(Arc<Inner>);

struct Inner {
    keys: Keypair,
    wallet: XOnlyPublicKey,
    shared_key: SharedKey,
    relays: Vec<Relay>,
    tls: TlsConnector,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    link: Option<Link>,
    /// The relay that is tried next.
    next: usize,
    failures: u32,
    failed: Option<Failed>,
}

/// How the relays failed last, and until when none is tried again.
struct Failed {
    kind: BackendErrorKind,
    cause: String,
    until: Instant,
}

/// Why a call brought no result.
pub(crate) enum CallError {
    /// The wallet says so.
    Wallet(Code),
    /// The answer never came, or is none.
    Link(BackendError),
}

/// The errors of NIP-47.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum Code {
    RateLimited,
    NotImplemented,
    InsufficientBalance,
    QuotaExceeded,
    Restricted,
    Unauthorized,
    Internal,
    PaymentFailed,
    NotFound,
    UnsupportedEncryption,
    #[serde(other)]
    Other,
}

#[derive(Serialize)]
struct Call<'a, P> {
    method: &'a str,
    params: &'a P,
}

/// An answer, before it is known whether it is an error: some wallets put an
/// empty result beside one.
#[derive(Deserialize)]
struct Head {
    result_type: Option<String>,
    error: Option<Failure>,
}

/// Its message is not read: a wallet may quote anything.
#[derive(Deserialize)]
struct Failure {
    code: Code,
}

#[derive(Deserialize)]
struct Body<T> {
    result: T,
}

impl Client {
    pub(super) fn new(connection: Connection, trust: Trust) -> Self {
        let Connection { wallet, relays, keys } = connection;
        let mut secret = keys.secret_key();
        let shared_key = SharedKey::new(&secret, &wallet);
        secret.non_secure_erase();
        let tls = TlsConnector::from(Arc::new(trust.into_config()));
        Self(Arc::new(Inner { keys, wallet, shared_key, relays, tls, state: Mutex::default() }))
    }

    pub(crate) fn wallet(&self) -> &XOnlyPublicKey {
        &self.0.wallet
    }

    /// Calls a method and reads its result. The request is sent at most once;
    /// after a [`Timeout`](BackendErrorKind::Timeout) or an
    /// [`InvalidResponse`](BackendErrorKind::InvalidResponse) the wallet may
    /// have acted on it.
    pub(crate) async fn call<T: DeserializeOwned>(
        &self,
        method: &str,
        params: &impl Serialize,
        time_limit: Duration,
    ) -> Result<T, CallError> {
        self.call_within(EXPIRATION, method, params, time_limit).await
    }

    /// As [`call`](Self::call), of what the wallet may do within `expiration`
    /// alone, in whole seconds.
    pub(crate) async fn call_within<T: DeserializeOwned>(
        &self,
        expiration: Duration,
        method: &str,
        params: &impl Serialize,
        time_limit: Duration,
    ) -> Result<T, CallError> {
        let deadline = Instant::now() + time_limit;
        let link = timeout_at(deadline, self.link()).await.unwrap_or_else(|_| Err(too_slow()))?;
        let request = self.request(&Call { method, params }, expiration)?;
        let answer = link.ask(&request, deadline).await?;
        let text = self.0.shared_key.decrypt(&answer.content).ok_or(invalid("answer cannot be decrypted"))?;
        let head: Head = serde_json::from_slice(&text).map_err(|_| invalid("answer is not one of NIP-47"))?;
        if let Some(failure) = head.error {
            return Err(CallError::Wallet(failure.code));
        }
        if head.result_type.as_deref() != Some(method) {
            return Err(invalid("answer is to another method").into());
        }
        // The error's text would quote the answer.
        let body: Body<T> = serde_json::from_slice(&text)
            .map_err(|_| invalid("answer has not the fields that were expected"))?;
        Ok(body.result)
    }

    /// Whether the wallet says that it serves all these methods.
    pub(crate) async fn serves(&self, methods: &[&str], time_limit: Duration) -> Result<bool, BackendError> {
        let link = timeout(time_limit, self.link()).await.unwrap_or_else(|_| Err(too_slow()))?;
        Ok(methods.iter().all(|method| link.info.content.split_whitespace().any(|served| served == *method)))
    }

    fn request(&self, call: &impl Serialize, expiration: Duration) -> Result<Event, BackendError> {
        let text = serde_json::to_string(call).expect("strings and numbers serialize");
        let content = self.0.shared_key.encrypt(&text, random(&SystemEntropy)).ok_or_else(|| {
            BackendError::new(BackendErrorKind::Rejected, "request is longer than 65,535 bytes")
        })?;
        let now = unix(SystemClock.now());
        let tag = |name: &str, value: String| vec![name.to_owned(), value];
        let tags = vec![
            tag("p", self.0.wallet.to_string()),
            tag("encryption", ENCRYPTION.to_owned()),
            tag("expiration", now.saturating_add(expiration.as_secs()).to_string()),
        ];
        Ok(Event::sign(&self.0.keys, now, REQUEST, tags, content))
    }

    /// The open link, or a new one to the first relay that works.
    async fn link(&self) -> Result<Link, BackendError> {
        let mut state = self.0.state.lock().await;
        if let Some(link) = state.link.as_ref().filter(|link| link.is_open()) {
            return Ok(link.clone());
        }
        state.link = None;
        if let Some(failed) = state.failed.as_ref().filter(|failed| Instant::now() < failed.until) {
            return Err(BackendError::new(failed.kind, format!("not tried again yet: {}", failed.cause)));
        }
        let mut error = too_slow();
        for _ in &self.0.relays {
            let tried = state.next;
            // Before the attempt, so that who gives up waiting for a relay
            // leaves the next one to the next.
            state.next = (tried + 1) % self.0.relays.len();
            match timeout(CONNECT_TIME_LIMIT, self.open(&self.0.relays[tried])).await {
                Ok(Ok(link)) => {
                    *state = State { link: Some(link.clone()), next: tried, ..State::default() };
                    return Ok(link);
                }
                Ok(Err(failed)) => error = failed,
                Err(_) => error = too_slow(),
            }
        }
        let back_off = MIN_BACK_OFF.saturating_mul(1 << state.failures.min(8)).min(MAX_BACK_OFF);
        state.failures = state.failures.saturating_add(1);
        let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        state.failed = Some(Failed { kind: error.kind(), cause, until: Instant::now() + back_off });
        Err(error)
    }

    async fn open(&self, relay: &Relay) -> Result<Link, BackendError> {
        let ours = self.0.keys.x_only_public_key().0;
        let link = Link::open(relay, &self.0.tls, self.0.wallet, ours, unix(SystemClock.now())).await?;
        let encryptions =
            link.info.tags.iter().filter(|tag| tag.first().is_some_and(|name| name == "encryption"));
        if encryptions.flatten().flat_map(|value| value.split_whitespace()).any(|one| one == ENCRYPTION) {
            return Ok(link);
        }
        let what = "wallet does not offer NIP-44 encryption (nip44_v2): update it";
        Err(BackendError::new(BackendErrorKind::Unsupported, what))
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.keys.non_secure_erase();
    }
}

fn too_slow() -> BackendError {
    BackendError::connect("relay did not answer in time")
}

fn invalid(what: &'static str) -> BackendError {
    BackendError::new(BackendErrorKind::InvalidResponse, what)
}

impl From<BackendError> for CallError {
    fn from(error: BackendError) -> Self {
        Self::Link(error)
    }
}

impl From<CallError> for BackendError {
    fn from(error: CallError) -> Self {
        let code = match error {
            CallError::Wallet(code) => code,
            CallError::Link(error) => return error,
        };
        let (kind, what) = match code {
            Code::RateLimited => {
                (BackendErrorKind::RateLimited { retry_after: None }, "wallet limits our rate")
            }
            Code::Unauthorized => {
                (BackendErrorKind::Auth, "wallet does not know the connection: make a new one")
            }
            Code::Restricted => (BackendErrorKind::Auth, "connection lacks a permission of the wallet's"),
            Code::NotImplemented => (BackendErrorKind::Unsupported, "wallet does not have the method"),
            Code::UnsupportedEncryption => {
                (BackendErrorKind::Unsupported, "wallet does not take NIP-44 encryption: update it")
            }
            Code::QuotaExceeded => (BackendErrorKind::Backend, "wallet has exceeded its quota"),
            Code::InsufficientBalance => (BackendErrorKind::Backend, "wallet has not the funds"),
            Code::PaymentFailed => (BackendErrorKind::Backend, "payment failed"),
            Code::NotFound => (BackendErrorKind::Backend, "wallet does not find it"),
            Code::Internal | Code::Other => (BackendErrorKind::Backend, "wallet failed"),
        };
        Self::new(kind, what)
    }
}
