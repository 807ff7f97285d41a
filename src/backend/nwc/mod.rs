//! Any wallet with Nostr Wallet Connect ([NIP-47]).
//!
//! [NIP-47]: https://github.com/nostr-protocol/nips/blob/master/47.md

mod client;
mod event;
mod link;
mod message;
mod nip44;
mod pending;
mod uri;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

pub(crate) use self::client::{CallError, Client, Code};
use self::uri::Connection;
use super::config::{env, env_network, env_opt};
use super::tls::Trust;
use super::{
    BackendError, BackendErrorKind, Capabilities, Invoice, InvoiceRequest, InvoiceState, LookUpBy, Network,
    PaymentBackend, shortened,
};
use crate::clock::{Clock as _, SystemClock, unix};
use crate::error::Error;
use crate::preimage::PaymentHash;

/// How long the wallet may take to make an invoice, and to say what became of one.
const CREATE_TIME_LIMIT: Duration = Duration::from_secs(10);
const LOOK_UP_TIME_LIMIT: Duration = Duration::from_secs(5);

/// Longest description of a BOLT 11 invoice, in bytes.
const MAX_DESCRIPTION: usize = 639;

const MAKE_INVOICE: &str = "make_invoice";
const LOOKUP_INVOICE: &str = "lookup_invoice";

/// Makes invoices on a wallet with Nostr Wallet Connect (NIP-47): Alby Hub and
/// many others, over a relay that both reach. Amounts are whole satoshis.
///
/// Give it a connection of its own that may `make_invoice` and
/// `lookup_invoice`, and nothing else: it can spend nothing then. The wallet
/// has to offer NIP-44 encryption. NIP-04, which NIP-47 keeps for old wallets,
/// is not spoken: a relay could have us fall back to it.
///
/// Such a wallet may keep its users' balances on books of its own, so that a
/// preimage proves nothing: the gate asks it about every token
/// ([`Capabilities::custodian`]), unless
/// [told otherwise](NwcConfig::dangerous_trust_preimage).
///
/// One connection to the first relay that works serves all clones. It is made
/// when it is needed, and ends a minute after the last call or with the last
/// clone.
///
/// ```
/// use l402::{Network, NwcBackend, NwcConfig};
///
/// # let uri = "nostr+walletconnect://b889ff5b1513b641e2a139f661a661364979c5beee91842f8f0ef42ab558e9d4\
/// #     ?relay=wss://relay.example&secret=71a8c14c1407c113601079c4302dab36460f0ccd0ad506f1f2dc73b5100e4f3c";
/// let wallet = NwcBackend::new(NwcConfig::new(uri, Network::Bitcoin))?;
/// # Ok::<(), l402::Error>(())
/// ```
#[derive(Clone)]
pub struct NwcBackend {
    client: Client,
    capabilities: Capabilities,
}

/// Which wallet is asked, and what is known of it.
#[derive(Clone)]
#[must_use]
pub struct NwcConfig {
    uri: Zeroizing<String>,
    network: Network,
    certificate: Option<PathBuf>,
    trusts_preimage: bool,
}

impl NwcConfig {
    /// The connection URI that the wallet gives, `nostr+walletconnect://...`, a
    /// secret; and the network that the wallet is on.
    pub fn new(uri: impl Into<String>, network: Network) -> Self {
        Self { uri: Zeroizing::new(uri.into()), network, certificate: None, trusts_preimage: false }
    }

    /// The certificate of a relay of one's own, in PEM form: no other is trusted
    /// then. Without it a relay needs one that browsers trust.
    pub fn with_certificate(mut self, certificate: impl Into<PathBuf>) -> Self {
        self.certificate = Some(certificate.into());
        self
    }

    /// Takes a preimage as proof of a payment, without asking the wallet. For a
    /// wallet on a Lightning node that serves you alone: on one that settles
    /// between its users, another user can have the preimage for nothing.
    pub fn dangerous_trust_preimage(mut self) -> Self {
        self.trusts_preimage = true;
        self
    }

    /// As the environment has it.
    pub(crate) fn from_env() -> Result<Self, Error> {
        let uri = env("NWC_URI", "the connection URI of the wallet, nostr+walletconnect://...")?;
        let mut config = Self::new(&*uri, env_network("NWC_NETWORK")?);
        if let Some(certificate) = env_opt("NWC_CERTIFICATE_FILE")? {
            config = config.with_certificate(&*certificate);
        }
        Ok(config)
    }

    pub(crate) fn into_client(self) -> Result<Client, Error> {
        let trust = self.certificate.as_deref().map_or(Ok(Trust::Public), Trust::pinned)?;
        Ok(Client::new(Connection::parse(&self.uri)?, trust))
    }

    #[cfg(feature = "client")]
    pub(crate) fn network(&self) -> Network {
        self.network
    }
}

impl NwcBackend {
    /// A backend on this wallet, which is not asked yet.
    ///
    /// # Errors
    /// The connection URI is not one, or the certificate cannot be read; the
    /// error says what is wrong.
    pub fn new(config: NwcConfig) -> Result<Self, Error> {
        let network = config.network;
        let wallet = if config.trusts_preimage {
            Capabilities::node(network)
        } else {
            Capabilities::custodian(network)
        };
        Ok(Self {
            client: config.into_client()?,
            capabilities: wallet.with_look_up(LookUpBy::PaymentHash).with_step_msat(1_000),
        })
    }

    /// A backend on the wallet of the environment: `NWC_URI`, `NWC_NETWORK`
    /// (`bitcoin` unless set) and `NWC_CERTIFICATE_FILE` (where the relay has a
    /// certificate of its own).
    ///
    /// # Errors
    /// A variable is missing, or as in [`new`](Self::new).
    pub fn from_env() -> Result<Self, Error> {
        Self::new(NwcConfig::from_env()?)
    }
}

#[derive(Serialize)]
struct Terms<'a> {
    /// In msat.
    amount: u64,
    description: &'a str,
    /// In seconds.
    expiry: u64,
}

#[derive(Deserialize)]
struct Made {
    invoice: String,
    payment_hash: Option<String>,
}

#[derive(Serialize)]
struct LookUp {
    payment_hash: String,
}

/// What is read of a transaction. It holds the preimage too.
#[derive(Deserialize)]
struct Found {
    #[serde(rename = "type")]
    direction: Option<String>,
    payment_hash: Option<String>,
    state: Option<String>,
    settled_at: Option<u64>,
    expires_at: Option<u64>,
}

impl Found {
    /// What became of it, at this unix second. Wallets older than `state` say
    /// when it was settled.
    fn state(&self, now: u64) -> Result<InvoiceState, BackendError> {
        let is_expired = self.expires_at.is_some_and(|expires_at| expires_at <= now);
        match self.state.as_deref() {
            Some("settled") => Ok(InvoiceState::Settled),
            Some("expired" | "failed") => Ok(InvoiceState::Closed),
            None if self.settled_at.is_some_and(|at| at > 0) => Ok(InvoiceState::Settled),
            None if is_expired => Ok(InvoiceState::Closed),
            Some("pending" | "accepted") | None => Ok(InvoiceState::Open),
            Some(_) => Err(invalid("`state` is not one of NIP-47")),
        }
    }
}

#[async_trait]
impl PaymentBackend for NwcBackend {
    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    async fn create_invoice(&self, ask: &InvoiceRequest) -> Result<Invoice, BackendError> {
        let terms = Terms {
            amount: ask.amount_msat,
            description: shortened(&ask.description, MAX_DESCRIPTION),
            expiry: ask.expiry.as_secs(),
        };
        let made: Made = self.client.call(MAKE_INVOICE, &terms, CREATE_TIME_LIMIT).await?;
        let invoice = Invoice::from_bolt11(made.invoice);
        match made.payment_hash.as_deref().map(str::parse) {
            None => Ok(invoice),
            Some(Ok(hash)) => Ok(invoice.with_payment_hash(hash)),
            Some(Err(_)) => Err(invalid("`payment_hash` is not 64 hex digits")),
        }
    }

    async fn look_up(
        &self,
        payment_hash: PaymentHash,
        _: Option<&str>,
    ) -> Result<InvoiceState, BackendError> {
        let ask = LookUp { payment_hash: payment_hash.to_string() };
        let found: Found = match self.client.call(LOOKUP_INVOICE, &ask, LOOK_UP_TIME_LIMIT).await {
            Err(CallError::Wallet(Code::NotFound)) => return Ok(InvoiceState::Unknown),
            found => found?,
        };
        if found.payment_hash.as_deref().is_some_and(|hash| hash.parse() != Ok(payment_hash)) {
            return Err(invalid("answer is about another invoice"));
        }
        // Where the wallet pays its own invoice, its payment has the same hash.
        if found.direction.as_deref().is_some_and(|direction| direction != "incoming") {
            return Err(invalid("answer is about a payment, not an invoice"));
        }
        found.state(unix(SystemClock.now()))
    }

    /// Reads what the wallet offers, and looks up an invoice that cannot be.
    async fn check_health(&self) -> Result<(), BackendError> {
        if !self.client.serves(&[MAKE_INVOICE, LOOKUP_INVOICE], LOOK_UP_TIME_LIMIT).await? {
            let what = "wallet does not offer make_invoice and lookup_invoice on this connection";
            return Err(BackendError::new(BackendErrorKind::Unsupported, what));
        }
        self.look_up([0; 32].into(), None).await.map(drop)
    }
}

fn invalid(what: &'static str) -> BackendError {
    BackendError::new(BackendErrorKind::InvalidResponse, what)
}

impl fmt::Debug for NwcBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NwcBackend")
            .field("wallet", &format_args!("{}", self.client.wallet()))
            .field("network", &self.capabilities.network())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for NwcConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NwcConfig")
            .field("network", &self.network)
            .field("certificate", &self.certificate)
            .field("trusts_preimage", &self.trusts_preimage)
            .finish_non_exhaustive()
    }
}
