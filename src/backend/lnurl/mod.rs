//! LNURL-pay and Lightning addresses: whatever wallet stands behind one
//! (LUD-06, LUD-16), asked what was paid where it can be (LUD-21).

mod address;

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use http::Uri;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use self::address::{absolute, endpoint, is_same_host, is_same_origin};
use super::config::{env, env_network};
use super::http::{Answer, Ask, Http, Reach};
use super::tls::Trust;
use super::{
    BackendError, BackendErrorKind, Capabilities, Invoice, InvoiceRequest, InvoiceState, LookUpBy, Network,
    PaymentBackend,
};
use crate::bolt11::{self, Bolt11};
use crate::clock::{Clock, SystemClock, unix};
use crate::error::Error;
use crate::invoice::MAX_HANDLE;
use crate::preimage::PaymentHash;

/// How long each request may take. An invoice takes two.
const TIME_LIMIT: Duration = Duration::from_secs(5);

/// Makes invoices of a Lightning address or LNURL-pay link: all that an
/// operator needs is the address of a wallet, whoever runs it.
///
/// Whether a preimage proves a payment is known to the provider alone, so the
/// gate asks about every token before it admits it, at the URL that the
/// provider gives with each invoice (LUD-21, `verify`). A provider without one
/// makes no invoices here, unless its preimages are
/// [trusted](LnurlConfig::dangerous_trust_preimage). Either way the provider is
/// trusted with the money and with what it says was paid.
///
/// The provider sets the description and the expiry of invoices, often to a
/// day, and a token lasts from the end of its invoice: a pass of a minute is
/// then worth up to a day more. An invoice that
/// expires before the issuer's challenge lifetime is refused: shorten that
/// ([`with_challenge_lifetime`](crate::IssuerBuilder::with_challenge_lifetime)).
/// The provider's terms are fetched anew for every invoice.
///
/// # What is fetched
/// The address itself; the `callback` that it names; the `verify` URL, which is
/// on the host of one of the two. The provider chooses the last two, so that
/// they are `https` and on public addresses only, checked when the connection
/// is made. Excepted is what has scheme, host and port of the address itself:
/// the operator chose these, and they may be loopback or `.onion` (for which
/// the system's resolver has to know the latter) and then plain `http`. No
/// redirect is followed. A `verify` URL goes into the token, readable by its
/// holder, and shows anybody the preimage once it is paid: a token alone is
/// then worth what was paid for it.
///
/// ```no_run
/// use l402::{LnurlBackend, LnurlConfig, Network};
///
/// let wallet = LnurlBackend::new(LnurlConfig::new("shop@wallet.example", Network::Bitcoin))?;
/// # Ok::<(), l402::Error>(())
/// ```
#[derive(Clone)]
pub struct LnurlBackend {
    /// For the origin of the endpoint.
    own: Http,
    /// For what the provider chooses.
    public: Http,
    endpoint: Uri,
    network: Network,
    step_msat: u64,
    trusts_preimage: bool,
}

/// Which address is paid.
#[derive(Clone, Debug)]
#[must_use]
pub struct LnurlConfig {
    address: String,
    network: Network,
    bills_msat: bool,
    trusts_preimage: bool,
}

impl LnurlConfig {
    /// The address: `user@domain`, `lnurl1…`, `lnurlp://…` or `https://…`, and
    /// the network of the wallet behind it.
    pub fn new(address: impl Into<String>, network: Network) -> Self {
        Self { address: address.into(), network, bills_msat: false, trusts_preimage: false }
    }

    /// The provider bills any msat. Unless set, amounts are rounded up to whole
    /// satoshis, since many providers bill these alone.
    pub fn with_msat(mut self) -> Self {
        self.bills_msat = true;
        self
    }

    /// Takes a preimage for a proof of payment, and asks the provider nothing:
    /// for a provider without LUD-21.
    ///
    /// That is sound only where the wallet's own node forwards every payment.
    /// A provider that settles between its users on its books, or shows
    /// preimages before the payment, lets its users in without one.
    pub fn dangerous_trust_preimage(mut self) -> Self {
        self.trusts_preimage = true;
        self
    }
}

impl LnurlBackend {
    /// A backend on this address. The provider is not asked yet.
    ///
    /// # Errors
    /// The address cannot be read.
    pub fn new(config: LnurlConfig) -> Result<Self, Error> {
        let LnurlConfig { address, network, bills_msat, trusts_preimage } = config;
        Ok(Self {
            own: Http::new(Trust::Public, Reach::Any),
            public: Http::new(Trust::Public, Reach::Public),
            endpoint: endpoint(&address)?,
            network,
            step_msat: if bills_msat { 1 } else { 1_000 },
            trusts_preimage,
        })
    }

    /// A backend on the address of the environment: `LNURL_ADDRESS`, and
    /// `LNURL_NETWORK` (`bitcoin` unless set).
    ///
    /// # Errors
    /// The variable is missing, or as in [`new`](Self::new).
    pub fn from_env() -> Result<Self, Error> {
        let address = env("LNURL_ADDRESS", "a Lightning address, such as shop@wallet.example")?;
        Self::new(LnurlConfig::new(&*address, env_network("LNURL_NETWORK")?))
    }

    async fn terms(&self) -> Result<Terms, BackendError> {
        let answer = self.fetch(self.endpoint.clone()).await?;
        let terms: Terms = read(&answer)?;
        if terms.tag != "payRequest" {
            return Err(invalid("the address is not one to pay to (LUD-06)"));
        }
        Ok(terms)
    }

    async fn fetch(&self, uri: Uri) -> Result<Answer, BackendError> {
        let client = self.client_for(&uri).ok_or_else(|| invalid("a URL of the provider's is not https"))?;
        client.send(Ask::get(uri), TIME_LIMIT).await
    }

    /// The client that may fetch a URL, whoever chose it.
    fn client_for(&self, uri: &Uri) -> Option<&Http> {
        if is_same_origin(uri, &self.endpoint) {
            return Some(&self.own);
        }
        (uri.scheme_str() == Some("https")).then_some(&self.public)
    }

    /// The handle of an invoice: its `verify` URL.
    fn handle(&self, verify: Option<String>, callback: &Uri) -> Result<String, BackendError> {
        let verify = verify.ok_or_else(|| {
            BackendError::new(
                BackendErrorKind::Unsupported,
                "the provider does not tell what was paid (LUD-21): take one that does, or see \
                 `LnurlConfig::dangerous_trust_preimage`",
            )
        })?;
        let uri = absolute(&verify).ok_or_else(|| invalid("`verify` is no URL"))?;
        if !(is_same_host(&uri, &self.endpoint) || is_same_host(&uri, callback)) {
            return Err(invalid("`verify` is on another host than the address and its `callback`"));
        }
        if self.client_for(&uri).is_none() {
            return Err(invalid("`verify` is not https"));
        }
        if verify.len() > MAX_HANDLE || !verify.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(invalid("`verify` is longer than 256 characters, or not of visible ASCII"));
        }
        Ok(verify)
    }
}

/// What the provider takes (LUD-06). Amounts are in msat.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Terms {
    tag: String,
    callback: String,
    min_sendable: u64,
    max_sendable: u64,
    metadata: String,
}

#[derive(Deserialize)]
struct Made {
    pr: String,
    verify: Option<String>,
}

/// What became of an invoice (LUD-21). There is a preimage beside it, which is
/// not read.
#[derive(Deserialize)]
struct Verified {
    settled: bool,
    pr: String,
}

/// What is read of an error, and never printed: a provider may quote anything.
#[derive(Deserialize)]
struct Failure {
    status: String,
    #[serde(default)]
    reason: String,
}

#[async_trait]
impl PaymentBackend for LnurlBackend {
    fn capabilities(&self) -> Capabilities {
        let capabilities = if self.trusts_preimage {
            Capabilities::node(self.network)
        } else {
            Capabilities::custodian(self.network).with_look_up(LookUpBy::Handle)
        };
        capabilities.with_step_msat(self.step_msat).with_fixed_expiry()
    }

    async fn create_invoice(&self, ask: &InvoiceRequest) -> Result<Invoice, BackendError> {
        let terms = self.terms().await?;
        let (least, most) = (terms.min_sendable, terms.max_sendable);
        if !(least..=most).contains(&ask.amount_msat) {
            return Err(BackendError::new(
                BackendErrorKind::Rejected,
                format!(
                    "{} msat is not in the {least} to {most} msat that the provider takes",
                    ask.amount_msat
                ),
            ));
        }
        let callback = absolute(&terms.callback).ok_or_else(|| invalid("`callback` is no URL"))?;
        let separator = if callback.query().is_some() { '&' } else { '?' };
        let uri = format!("{callback}{separator}amount={}", ask.amount_msat)
            .parse()
            .map_err(|_| invalid("`callback` is too long"))?;
        let made: Made = read(&self.fetch(uri).await?)?;

        // LUD-06 no longer asks for the hash, but a wrong one is another sale's.
        let metadata = <[u8; 32]>::from(Sha256::digest(&terms.metadata));
        if invoice_of(&made.pr)?.description_hash.is_some_and(|hash| hash != metadata) {
            return Err(invalid("invoice is not for the metadata of the address"));
        }
        let invoice = Invoice::from_bolt11(made.pr);
        if self.trusts_preimage {
            return Ok(invoice);
        }
        Ok(invoice.with_handle(self.handle(made.verify, &callback)?))
    }

    async fn look_up(
        &self,
        payment_hash: PaymentHash,
        handle: Option<&str>,
    ) -> Result<InvoiceState, BackendError> {
        let uri =
            handle.and_then(absolute).filter(|uri| self.client_for(uri).is_some()).ok_or_else(|| {
                BackendError::new(
                    BackendErrorKind::Unsupported,
                    "the invoice has no URL at which to ask about it",
                )
            })?;
        let answer = self.fetch(uri).await?;
        if failure(&answer).is_some_and(|failure| failure.reason.eq_ignore_ascii_case("not found")) {
            return Ok(InvoiceState::Unknown);
        }
        let verified: Verified = read(&answer)?;
        let invoice = invoice_of(&verified.pr)?;
        if invoice.payment_hash != payment_hash {
            return Err(invalid("answer is about another invoice"));
        }
        Ok(match verified.settled {
            true => InvoiceState::Settled,
            false if invoice.expires_at() <= unix(SystemClock.now()) => InvoiceState::Closed,
            false => InvoiceState::Open,
        })
    }

    /// Fetches the terms of the address.
    async fn check_health(&self) -> Result<(), BackendError> {
        self.terms().await.map(drop)
    }
}

/// Reads an answer. Errors come with status 200 (LUD-06).
fn read<T: DeserializeOwned>(answer: &Answer) -> Result<T, BackendError> {
    if answer.status.is_success() && failure(answer).is_some() {
        return Err(BackendError::new(
            BackendErrorKind::Backend,
            "the provider answers with an error: fetch the address by hand to read it",
        ));
    }
    answer.json()
}

fn failure(answer: &Answer) -> Option<Failure> {
    answer.body_as::<Failure>().ok().filter(|failure| failure.status.eq_ignore_ascii_case("error"))
}

fn invoice_of(text: &str) -> Result<Bolt11, BackendError> {
    bolt11::read(text).ok_or_else(|| invalid("`pr` is no BOLT 11 invoice"))
}

fn invalid(what: &'static str) -> BackendError {
    BackendError::new(BackendErrorKind::InvalidResponse, what)
}

impl fmt::Debug for LnurlBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LnurlBackend")
            .field("endpoint", &self.endpoint)
            .field("network", &self.network)
            .field("trusts_preimage", &self.trusts_preimage)
            .finish_non_exhaustive()
    }
}
