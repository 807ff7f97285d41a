//! What an issuer is made of, checked before the first gate.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::accounts::Accounts;
use crate::backend::{Network, PaymentBackend};
use crate::caveat::CaveatRegistry;
use crate::clock::{Clock, MINUTE, SystemClock};
use crate::entropy::{Entropy, SystemEntropy};
use crate::error::{Error, ErrorKind};
use crate::event::{Event, Events};
use crate::exchange::{Exchange, RateSource};
use crate::issuer::{Issuer, IssuerInner};
use crate::keys::{KeyRing, SigningKeys};
use crate::ledger::{Ledger, Meter, Revocations};
use crate::limit::{self, Limits};
use crate::payment::{Payments, Policy};
use crate::watched::Watched;

/// How long a ledger operation may take before the request is refused.
const LEDGER_TIME_LIMIT: Duration = Duration::from_secs(5);

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
    pub(crate) fn new(keys: KeyRing, backend: impl PaymentBackend + 'static) -> Self {
        Self {
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
    /// is always so with a [custodian](crate::Capabilities::custodian). The backend is
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
        Ok(Some(checkout.pending_seconds()))
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
