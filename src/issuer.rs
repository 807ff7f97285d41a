//! What all gates of a server share.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;

use crate::accounts::Accounts;
use crate::answer::Refused;
use crate::backend::{self, BackendError, Capabilities, LookUpBy, Network, PaymentBackend};
use crate::caveat::CaveatRegistry;
use crate::clock::{Clock, MINUTE, SystemClock, unix};
use crate::entropy::{Entropy, SystemEntropy};
use crate::error::{Error, ErrorKind};
use crate::event::{Event, Events};
use crate::exchange::{Exchange, RateSource};
use crate::keys::{KeyRing, SigningKeys};
use crate::ledger::{Account, Ledger, LedgerError, Meter, OpenReservation, Revocation, Revocations};
use crate::limit::{self, Limits};
use crate::macaroon::Verified;
use crate::offer::Offer;
use crate::payment::{Payments, Policy, Unconfirmed};
use crate::preimage::PaymentHash;
use crate::refusal::Refusal;
use crate::watched::Watched;

/// How long a ledger operation may take before the request is refused.
const LEDGER_TIME_LIMIT: Duration = Duration::from_secs(5);

/// How long a backend may take to say that it is well.
const HEALTH_TIME_LIMIT: Duration = Duration::from_secs(5);

/// Issues and honours the tokens of a server: its keys, network, payment
/// backend, ledger, conditions and clock. Two issuers with the same keys are
/// the same issuer to a token: give each service to one of them. Running, shared and cheap to clone;
/// its gates are made with [`Gate::new`](crate::Gate::new).
///
/// ```
/// # #[cfg(feature = "dev")] {
/// use l402::{DevBackend, Issuer, KeyRing, MemoryLedger, Network, RootKey};
///
/// let keys = KeyRing::new(RootKey::generate()); // `KeyRing::from_env("L402_ROOT_KEYS")?` in production
/// let issuer = Issuer::builder(keys, DevBackend::new())
///     .with_network(Network::Regtest)
///     .with_ledger(MemoryLedger::new())
///     .build()?;
/// # }
/// # Ok::<(), l402::Error>(())
/// ```
#[derive(Clone)]
pub struct Issuer(pub(crate) Arc<IssuerInner>);

pub(crate) struct IssuerInner {
    network: Network,
    ledger_instance: Option<[u8; 16]>,
    /// Read by every admission without a lock.
    pub(crate) keys: ArcSwap<SigningKeys>,
    revocations: Revocations,
    pub(crate) backend: Arc<dyn PaymentBackend>,
    pub(crate) capabilities: Capabilities,
    pub(crate) meter: Option<Arc<Meter>>,
    pub(crate) caveats: CaveatRegistry,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) challenge_lifetime: Duration,
    pub(crate) limits: Limits,
    pub(crate) payments: Payments,
    /// Where tokens of accounts are known.
    pub(crate) accounts: Option<Accounts>,
    #[cfg(feature = "offers")]
    pub(crate) checkout: Option<crate::checkout::Counter>,
    pub(crate) exchange: Option<Exchange>,
    pub(crate) events: Events,
    /// What people see, and the path of its form.
    #[cfg(feature = "page")]
    pub(crate) page: Option<(Arc<str>, Arc<crate::page::Page>)>,
    /// The service names that gates and their builders have.
    names: Mutex<HashSet<String>>,
}

impl IssuerInner {
    /// The ledger's, or this process's own where there is no ledger.
    pub(crate) fn revocations(&self) -> &Revocations {
        self.meter.as_ref().map_or(&self.revocations, |meter| meter.ledger.revocations())
    }
}

impl IssuerInner {
    /// Asks the backend whether this was paid, where that is not known.
    pub(crate) async fn confirm(&self, payment: &Unconfirmed) -> Result<(), Refused> {
        // Sold on another backend: this one knows nothing of it.
        if payment.handle.is_none() && self.capabilities.look_up() == Some(LookUpBy::Handle) {
            return Err(Refusal::NotPaid.into());
        }
        self.payments.confirm(payment, &*self.backend, &*self.clock, &self.limits).await
    }

    /// Answers the challenge of this token to nobody any more.
    pub(crate) fn forget_pending(&self, token: &Verified<'_>, now: SystemTime) {
        let Some(reuse) = &self.limits.reuse else { return };
        // One that is older cannot be pending, and costs no lock.
        let oldest = token.token_id().issued_at().saturating_add(self.challenge_lifetime.as_secs() + 60);
        if unix(now) <= oldest {
            reuse.forget(token.payment_hash());
        }
    }
}

impl Issuer {
    /// Begins an issuer of mainnet tokens, without a ledger.
    pub fn builder(keys: KeyRing, backend: impl PaymentBackend + 'static) -> IssuerBuilder {
        IssuerBuilder {
            keys,
            backend: Arc::new(backend),
            network: Network::Bitcoin,
            ledger: None,
            caveats: CaveatRegistry::new(),
            clock: Arc::new(SystemClock),
            entropy: Arc::new(SystemEntropy),
            challenge_lifetime: 5 * MINUTE,
            settlement: Policy::default(),
            limits: limit::Config::default(),
            exchange: None,
            events: Events::default(),
            #[cfg(feature = "page")]
            page: None,
            #[cfg(feature = "offers")]
            checkout: None,
        }
    }

    /// Everything a first try needs: regtest, a fresh key, a [`MemoryLedger`](crate::MemoryLedger),
    /// and a line on standard error that says so.
    ///
    /// Whoever reaches the wallet pays with play money, and a restart forgets
    /// every token.
    #[cfg(feature = "dev")]
    #[cfg_attr(docsrs, doc(cfg(feature = "dev")))]
    pub fn dev(wallet: &crate::DevBackend) -> Self {
        crate::warn::warn(format_args!(
            "development issuer: regtest play money, a fresh key, uses counted in memory"
        ));
        Self::builder(KeyRing::new(crate::RootKey::generate()), wallet.clone())
            .with_network(Network::Regtest)
            .with_ledger(crate::MemoryLedger::new())
            .build()
            .expect("one fresh key, on the network of the backend")
    }

    /// Changes the keys while the server runs: tokens are signed with the
    /// ring's first key from now on, and honoured if any of its keys signed them.
    ///
    /// # Errors
    /// Two keys of the ring have the same id. The keys stay as they were.
    pub fn set_keys(&self, keys: &KeyRing) -> Result<(), Error> {
        let keys = SigningKeys::new(keys, self.0.network, self.0.ledger_instance)?;
        self.0.keys.store(Arc::new(keys));
        Ok(())
    }

    /// Revokes tokens: their holders are answered 402 from now on. The ledger
    /// remembers it as long as it remembers uses, and without a ledger this
    /// process does.
    ///
    /// Without a durable ledger a restart forgets it, and honours a revoked
    /// pass again: change the keys, or sell short passes.
    ///
    /// What would be revoked as soon as it is sold is not sold: while the key
    /// that signs is revoked, or a service up to a moment to come, who asks for
    /// an invoice is answered 500. Change the keys first
    /// ([`set_keys`](Self::set_keys)), then revoke the old one.
    ///
    /// # Errors
    /// The ledger could not store it. This process honours the tokens no more
    /// all the same.
    pub async fn revoke(&self, revocation: Revocation) -> Result<(), LedgerError> {
        self.0.revocations().add(&revocation);
        let Some(meter) = &self.0.meter else { return Ok(()) };
        let ledger = meter.ledger.clone();
        meter.run_to_end(async move { ledger.revoke(&revocation).await }).await
    }

    /// What the token with this payment hash has had; `None` where it was
    /// never used, or is not metered.
    ///
    /// # Errors
    /// The ledger could not be read.
    pub async fn account(&self, token: PaymentHash) -> Result<Option<Account>, LedgerError> {
        let Some(meter) = &self.0.meter else { return Ok(None) };
        let ledger = meter.ledger.clone();
        meter.run_to_end(async move { ledger.account(&token.into()).await }).await
    }

    /// The reservations that no request has ended yet. One past its lease was
    /// left by a process that died: it counts as spent.
    ///
    /// # Errors
    /// The ledger could not be read.
    pub async fn open_reservations(&self) -> Result<Vec<OpenReservation>, LedgerError> {
        let Some(meter) = &self.0.meter else { return Ok(Vec::new()) };
        let ledger = meter.ledger.clone();
        meter.run_to_end(async move { ledger.open_reservations().await }).await
    }

    /// Whether the backend can be reached and takes our credentials: for a
    /// readiness probe. It may take 5 seconds. A server whose backend is down
    /// still admits what was paid for.
    ///
    /// # Errors
    /// Why it cannot be used, or
    /// [`Unsupported`](crate::BackendErrorKind::Unsupported) where the backend
    /// does not tell.
    pub async fn check_backend(&self) -> Result<(), BackendError> {
        backend::call(HEALTH_TIME_LIMIT, || self.0.backend.check_health()).await
    }

    /// Whether a token of an account may come as a `Bearer`.
    pub(crate) fn takes_bearers(&self) -> bool {
        self.0.accounts.is_some()
    }

    /// Takes a service name for one gate builder and the gates made with it.
    pub(crate) fn claim(&self, name: &str) -> Option<Claim> {
        let mut names = self.0.names.lock().unwrap_or_else(PoisonError::into_inner);
        names.insert(name.to_owned()).then(|| Claim {
            issuer: self.clone(),
            name: name.to_owned(),
            offers: Mutex::default(),
        })
    }
}

impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issuer")
            .field("network", &self.0.network)
            .field("backend", &self.0.backend)
            .finish_non_exhaustive()
    }
}

/// A service name, taken until the last gate that has it is gone.
pub(crate) struct Claim {
    issuer: Issuer,
    name: String,
    /// What the gates of the service sell: an id names one offer among them.
    offers: Mutex<Vec<Arc<Offer>>>,
}

impl Claim {
    /// Whether the service may sell this offer: no other one has its id.
    pub(crate) fn sells(&self, offer: &Arc<Offer>) -> bool {
        let mut offers = self.offers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(other) = offers.iter().find(|other| other.id == offer.id) {
            return other.has_terms_of(offer);
        }
        offers.push(offer.clone());
        true
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.issuer.0.names.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.name);
    }
}

impl fmt::Debug for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name.fmt(f)
    }
}

/// Configures an [`Issuer`].
#[derive(Debug)]
#[must_use]
pub struct IssuerBuilder {
    keys: KeyRing,
    backend: Arc<dyn PaymentBackend>,
    network: Network,
    ledger: Option<Arc<dyn Ledger>>,
    caveats: CaveatRegistry,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    challenge_lifetime: Duration,
    settlement: Policy,
    pub(crate) limits: limit::Config,
    exchange: Option<Exchange>,
    events: Events,
    #[cfg(feature = "page")]
    page: Option<(Arc<str>, Arc<crate::page::Page>)>,
    #[cfg(feature = "offers")]
    pub(crate) checkout: Option<crate::checkout::CheckoutConfig>,
}

impl IssuerBuilder {
    /// The network that is sold on, mainnet unless set. It goes into every
    /// key, so a token of one network is worth nothing on another.
    pub fn with_network(mut self, network: Network) -> Self {
        self.network = network;
        self
    }

    /// Where uses are counted. There is no default: an offer of counted uses
    /// does not build without one.
    pub fn with_ledger(mut self, ledger: impl Ledger + 'static) -> Self {
        self.ledger = Some(Arc::new(ledger));
        self
    }

    /// Conditions beside the built-in ones.
    pub fn with_caveats(mut self, caveats: CaveatRegistry) -> Self {
        self.caveats = caveats;
        self
    }

    /// Where time comes from, the system's clock unless set.
    pub fn with_clock(mut self, clock: impl Clock + 'static) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Where randomness comes from, the operating system unless set.
    pub fn with_entropy(mut self, entropy: impl Entropy + 'static) -> Self {
        self.entropy = Arc::new(entropy);
        self
    }

    /// How long an invoice can be paid, 5 minutes unless set; for a shorter
    /// pass as long as the pass, and 30 seconds at least. Whole seconds.
    pub fn with_challenge_lifetime(mut self, lifetime: Duration) -> Self {
        self.challenge_lifetime = lifetime;
        self
    }

    /// Admits a token only once the backend says that its invoice was paid, as
    /// is always so with a [custodian](Capabilities::custodian). The backend is
    /// asked once per token, when it is first presented, and its answer is
    /// remembered by this process while the token is among the last 65,536.
    ///
    /// A payment that the backend has not seen yet is answered 503; one that no
    /// longer can be made, 402.
    pub fn with_strict_settlement(mut self) -> Self {
        self.settlement.strict = true;
        self
    }

    /// Admits also a token that comes without its preimage
    /// (`Authorization: L402 <token>`), once the backend says that its invoice
    /// was paid, for payers whose wallet shows no preimage. The grant's basis
    /// is then [`Basis::Settled`](crate::Basis::Settled). The token alone is
    /// then worth what was paid for it: whoever reads the challenge can use it.
    pub fn with_settled_tokens(mut self) -> Self {
        self.settlement.admit_settled = true;
        self
    }

    /// Where the rates of other currencies come from, for prices that are not
    /// in msat ([`Price::minor`](crate::Price::minor)); none unless set. A rate
    /// is asked for when something is sold and the last one is older than half
    /// of `max_age` (whole seconds); where that fails, the last one serves until
    /// it is older than `max_age`, and then the answer is 503. Amounts are
    /// rounded up to the msat.
    ///
    /// ```
    /// # #[cfg(feature = "dev")] {
    /// use l402::{Currency, DevBackend, ExchangeRate, Issuer, KeyRing, MINUTE, Network, RootKey};
    ///
    /// let issuer = Issuer::builder(KeyRing::new(RootKey::generate()), DevBackend::new())
    ///     .with_network(Network::Regtest)
    ///     .with_rates(10 * MINUTE, |_: Currency| async move { Ok(ExchangeRate::per_bitcoin(6_543_210)?) })
    ///     .build()?;
    /// # }
    /// # Ok::<(), l402::Error>(())
    /// ```
    pub fn with_rates(mut self, max_age: Duration, source: impl RateSource + 'static) -> Self {
        self.exchange = Some(Exchange::new(Arc::new(source), max_age));
        self
    }

    /// Calls the closure with everything that the issuer's gates do; nothing
    /// unless set, and of several closures the last one counts.
    ///
    /// It is called in the midst of requests, and has to return at once: count,
    /// or send into a channel, and leave what takes time to a task. A panic of
    /// it changes nothing.
    ///
    /// ```
    /// # #[cfg(feature = "dev")] {
    /// use std::sync::atomic::{AtomicU64, Ordering};
    /// use l402::{DevBackend, Event, Issuer, KeyRing, Network, RootKey};
    ///
    /// static BILLED: AtomicU64 = AtomicU64::new(0);
    ///
    /// let issuer = Issuer::builder(KeyRing::new(RootKey::generate()), DevBackend::new())
    ///     .with_network(Network::Regtest)
    ///     .on_event(|event| {
    ///         if let Event::Challenge { amount_msat, .. } = event {
    ///             BILLED.fetch_add(*amount_msat, Ordering::Relaxed);
    ///         }
    ///     })
    ///     .build()?;
    /// # }
    /// # Ok::<(), l402::Error>(())
    /// ```
    pub fn on_event(mut self, hook: impl Fn(&Event<'_>) + Send + Sync + 'static) -> Self {
        self.events = Events::hooked(hook);
        self
    }

    /// Answers people with a [page](crate::page) in place of JSON: those whose
    /// `Accept` prefers `text/html`, as browsers do. All gates of the issuer do
    /// so then, and read the cookie by which a browser shows what it bought.
    ///
    /// `route` is the path, as the browser sees it, at which the server has
    /// [`Issuer::page_router`] or [`Issuer::serve_page`]. Without it nobody
    /// gets in from the page. With
    /// [`with_settled_tokens`](Self::with_settled_tokens) the page sees a
    /// payment that was made on another device; else a person has to paste the
    /// preimage.
    #[cfg(feature = "page")]
    #[cfg_attr(docsrs, doc(cfg(feature = "page")))]
    pub fn with_page(mut self, route: &str, page: crate::page::Page) -> Self {
        self.page = Some((route.into(), Arc::new(page)));
        self
    }

    /// How long an account may wait for its payment, in seconds; `None` where
    /// there is no checkout, and so no account.
    #[cfg(feature = "offers")]
    fn accounts_are_pending_for(&self) -> Result<Option<u64>, Error> {
        let Some(checkout) = &self.checkout else { return Ok(None) };
        checkout.validate()?;
        if self.ledger.is_none() && !checkout.methods.is_empty() {
            let what = "the checkout has payment methods that credit a ledger: set `with_ledger`";
            return Err(Error::new(ErrorKind::NoLedger, what));
        }
        Ok(Some(checkout.lifetime_seconds()))
    }

    #[cfg(not(feature = "offers"))]
    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "as with a checkout")]
    fn accounts_are_pending_for(&self) -> Result<Option<u64>, Error> {
        Ok(None)
    }

    /// The issuer.
    ///
    /// # Errors
    /// The backend takes payments on another network or cannot say what was
    /// paid where that is needed, two keys have the same id, a condition has a
    /// name that is not allowed, the ranges of proxies cannot be read, or the
    /// route of the page is no path.
    pub fn build(self) -> Result<Issuer, Error> {
        let capabilities = self.backend.capabilities();
        if capabilities.network() != self.network {
            return Err(Error::new(
                ErrorKind::Network,
                format!(
                    "the issuer sells on {}, the backend takes payments on {}: set `with_network`, or another backend",
                    self.network,
                    capabilities.network()
                ),
            ));
        }
        let settlement = self.settlement.for_backend(&capabilities)?;
        self.caveats.validate()?;
        #[cfg(feature = "page")]
        if let Some((route, _)) = &self.page {
            crate::page::validate_route(route)?;
        }
        let unpaid_for = self.accounts_are_pending_for()?;
        let limits = Limits::new(self.limits)?;
        let ledger_instance = self.ledger.as_ref().and_then(Ledger::instance);
        let keys = SigningKeys::new(&self.keys, self.network, ledger_instance)?;
        let events = self.events;
        let backend = if events.are_watched() {
            Arc::new(Watched::new(self.backend, events.clone()))
        } else {
            self.backend
        };
        let ledger = self.ledger.map(|ledger| -> Arc<dyn Ledger> {
            if events.are_watched() { Arc::new(Watched::new(ledger, events.clone())) } else { ledger }
        });
        let meter = ledger.map(|ledger| {
            Arc::new(Meter::new(ledger, self.clock.clone(), self.entropy.clone(), LEDGER_TIME_LIMIT))
        });
        Ok(Issuer(Arc::new(IssuerInner {
            network: self.network,
            ledger_instance,
            keys: ArcSwap::from_pointee(keys),
            revocations: Revocations::new(),
            backend,
            capabilities,
            meter,
            caveats: self.caveats,
            clock: self.clock,
            entropy: self.entropy,
            challenge_lifetime: self.challenge_lifetime.max(Duration::from_secs(1)),
            limits,
            payments: Payments::new(settlement),
            accounts: unpaid_for.map(Accounts::new),
            #[cfg(feature = "offers")]
            checkout: self.checkout.map(crate::checkout::Counter::new),
            exchange: self.exchange,
            events,
            #[cfg(feature = "page")]
            page: self.page,
            names: Mutex::default(),
        })))
    }
}
