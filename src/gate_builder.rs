//! What a gate is made of, checked before the first request.

use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;

use crate::admission::ChargeOn;
use crate::claim::Claim;
use crate::demand::{Cost, FreeIf, known_capabilities, opens};
use crate::error::{Error, ErrorKind};
use crate::event;
use crate::gate::{Gate, GateInner};
use crate::issuer::Issuer;
use crate::limit::{FreeRequests, Level, Pool};
use crate::name;
use crate::offer::Offer;
use crate::price::{Price, Unit};
use crate::sale;

/// Longest token that is sold, in bytes. A challenge carries it twice, with an
/// invoice, and so stays below the 8 KiB that proxies allow for headers; and
/// its holder has as much again for caveats of their own.
const MAX_SOLD: usize = 2048;

/// Most invoices that a gate keeps ready: under 5 MiB where they are as long as
/// they may be, and a tenth of that as nodes make them.
const MAX_POOL: usize = 1024;

/// Configures a [`Gate`]. Clones build gates of the same service.
#[derive(Clone, Debug)]
#[must_use]
pub struct GateBuilder {
    pub(crate) issuer: Issuer,
    pub(crate) service: Arc<str>,
    claim: Option<Arc<Claim>>,
    offers: Vec<Arc<Offer>>,
    min_tier: u8,
    capability: Option<String>,
    conditions: Vec<String>,
    cost: Cost,
    free_if: Option<FreeIf>,
    charge_on: ChargeOn,
    forward_credential: bool,
    free_requests: Option<FreeRequests>,
    pool_size: usize,
    dry_run: bool,
    #[cfg(feature = "page")]
    pub(crate) page: Option<Arc<crate::page::Page>>,
    #[cfg(feature = "offers")]
    pub(crate) subject: Option<crate::checkout::SubjectFn>,
}

impl GateBuilder {
    pub(crate) fn new(issuer: &Issuer, service: &str, offer: Offer) -> Self {
        Self {
            issuer: issuer.clone(),
            service: service.into(),
            claim: issuer.claim(service).map(Arc::new),
            offers: vec![Arc::new(offer)],
            min_tier: 0,
            capability: None,
            conditions: Vec::new(),
            cost: Cost::Fixed(1),
            free_if: None,
            charge_on: ChargeOn::NotServerError,
            forward_credential: false,
            free_requests: None,
            pool_size: 0,
            dry_run: false,
            #[cfg(feature = "page")]
            page: None,
            #[cfg(feature = "offers")]
            subject: None,
        }
    }

    /// Adds an offer that opens the gate too. The challenge sells the first
    /// offer that is enough for the gate; the body lists all that are.
    pub fn add_offer(mut self, offer: Offer) -> Self {
        self.offers.push(Arc::new(offer));
        self
    }

    /// Adds an offer whose tokens open the gate still, and which is sold no more.
    pub fn honour_offer(mut self, offer: Offer) -> Self {
        self.offers.push(Arc::new(Offer { is_for_sale: false, ..offer }));
        self
    }

    /// Sells this offer in place of those so far. Those of them whose tokens are
    /// good still are added again, to be [honoured](Self::honour_offer).
    pub fn with_offer(mut self, offer: Offer) -> Self {
        self.offers = vec![Arc::new(offer)];
        self
    }

    /// The lowest tier that is admitted, 0 unless set.
    pub fn require_tier(mut self, tier: u8) -> Self {
        self.min_tier = tier;
        self
    }

    /// A capability that a token needs; none unless set.
    pub fn require_capability(mut self, capability: &str) -> Self {
        self.capability = Some(capability.to_owned());
        self
    }

    /// A condition of [`CaveatRegistry::bind`](crate::CaveatRegistry::bind)
    /// that a token has to be bound by. A request that does not carry it is
    /// answered 400, and sold nothing.
    pub fn require_condition(mut self, condition: &str) -> Self {
        self.conditions.push(condition.to_owned());
        self
    }

    /// How many units of a counted token one request takes, 1 unless set. A
    /// pass is not counted.
    pub fn with_cost(mut self, units: u64) -> Self {
        self.cost = Cost::Fixed(units);
        self
    }

    /// How many units of a counted token a request takes, from its head
    /// (without the credential). A request that takes 0 units still needs a
    /// token that is good. Where the closure panics, the answer is 500.
    pub fn with_cost_fn(mut self, units: impl Fn(&Parts) -> u64 + Send + Sync + 'static) -> Self {
        self.cost = Cost::Computed(Arc::new(units));
        self
    }

    /// Lets pass what the closure says of a request's head (without the
    /// credential): a health check, one gRPC method, those who pay otherwise.
    /// Nothing is unless set; of several closures the last one counts.
    ///
    /// The handler finds a [`Grant`](crate::Grant) of
    /// [`Basis::FreeIf`](crate::Basis::FreeIf). A credential is taken out of the
    /// headers as ever, and neither verified nor debited: an expired one does no
    /// harm here. Only where it cannot be told what to take out (two different
    /// credentials, or one that is too long) is the answer 401. A gate further
    /// in decides for itself. The response is kept out of shared caches, since
    /// the next client may have to pay; what a cache is to hold, leave outside
    /// the gate. Where the closure panics, the request is not free.
    ///
    /// Look at nothing that a client can write as it likes: a header that a
    /// proxy sets is a password if the proxy does not remove the client's.
    ///
    /// ```
    /// # #[cfg(feature = "dev")] {
    /// use l402::{Access, DevBackend, Gate, Issuer, Offer, Price};
    ///
    /// let issuer = Issuer::dev(&DevBackend::new());
    /// let gate = Gate::builder(&issuer, "weather", Offer::new(Price::sat(3), Access::uses(50)))
    ///     .free_if(|head| head.uri.path() == "/weather.Weather/Ping")
    ///     .build()?;
    /// # }
    /// # Ok::<(), l402::Error>(())
    /// ```
    pub fn free_if(mut self, free: impl Fn(&Parts) -> bool + Send + Sync + 'static) -> Self {
        self.free_if = Some(FreeIf(Arc::new(free)));
        self
    }

    /// When a counted use is charged, [`ChargeOn::NotServerError`] unless set.
    pub fn with_charge_on(mut self, charge_on: ChargeOn) -> Self {
        self.charge_on = charge_on;
        self
    }

    /// Puts the credential back into the headers of an admitted request. The
    /// inner service then sees token and preimage, in a value marked sensitive.
    /// The closures of prices, costs and conditions do not.
    pub fn forward_credential(mut self) -> Self {
        self.forward_credential = true;
        self
    }

    /// Lets every client have `n` requests for nothing before it is asked to
    /// pay, in each window of this length, which begins with the client's first
    /// one. The gates of a service that are built with the same numbers count
    /// together; each process counts for itself.
    ///
    /// Only requests without a credential are free and counted. The handler
    /// finds a [`Grant`](crate::Grant) of [`Basis::FreeTier`](crate::Basis::FreeTier)
    /// that is not paid, and the response is kept from shared caches as a paid
    /// one is. It has no `RateLimit` fields: those tell of what a token has left.
    ///
    /// **The client has to be known**: by the address of the connection, which
    /// the server has to give ([`PeerAddr`](crate::PeerAddr)), or as the issuer
    /// was told ([`with_trusted_proxies`](crate::IssuerBuilder::with_trusted_proxies),
    /// [`with_client`](crate::IssuerBuilder::with_client)). Where it is not,
    /// nothing is free; nor where 65,536 clients of the issuer are within
    /// their windows. Behind a proxy that nobody named all clients are one.
    ///
    /// ```
    /// # #[cfg(feature = "dev")] {
    /// use l402::{Access, DAY, DevBackend, Gate, Issuer, Offer, Price};
    /// # let issuer = Issuer::dev(&DevBackend::new());
    /// let offer = Offer::new(Price::sat(21), Access::uses(100));
    /// let gate = Gate::builder(&issuer, "forecast", offer).with_free_requests(5, DAY).build()?;
    /// # }
    /// # Ok::<(), l402::Error>(())
    /// ```
    pub fn with_free_requests(mut self, n: u32, per: Duration) -> Self {
        self.free_requests = Some(FreeRequests::new(n, per));
        self
    }

    /// Keeps up to this many invoices ready, at most 1,024 and none unless
    /// set, so that a challenge does not wait for the backend. They are of the
    /// offer that the gate sells, which has to have a fixed price, and each gate
    /// has its own.
    ///
    /// Only use fills the pool: each challenge has up to two invoices made, so
    /// the first after a quiet hour still waits. An invoice is handed out once,
    /// with at least half of its time to pay left; what grows older is thrown
    /// away, so the backend makes up to three invoices for a challenge. All of
    /// them count against [`with_server_challenges`](crate::IssuerBuilder::with_server_challenges).
    /// The token is made when it is handed out, but carries the moment at which
    /// its invoice was asked for.
    pub fn with_invoice_pool(mut self, size: usize) -> Self {
        self.pool_size = size;
        self
    }

    /// Whether each offer can be sold, beside the others and those of the other
    /// gates of the service.
    fn check_offers(&self, claim: &Claim) -> Result<(), Error> {
        let service = &self.service;
        let error =
            |message: String| Err(Error::new(ErrorKind::Offer, format!("gate `{service}`: {message}")));
        for (i, offer) in self.offers.iter().enumerate() {
            let id = &offer.id;
            offer.validate(service)?;
            if self.offers[..i].iter().any(|other| other.id == *id) {
                return error(format!("two offers have the id `{id}`: set `with_id`"));
            }
            if !claim.sells(offer) {
                return error(format!(
                    "another gate of this service sells offer `{id}` on other terms: share the offer, or set `with_id`"
                ));
            }
            if offer.is_metered() && self.issuer.0.meter.is_none() {
                return Err(Error::new(
                    ErrorKind::NoLedger,
                    format!(
                        "offer `{id}` of `{service}` counts uses: give the issuer a ledger with `with_ledger`, or sell a pass"
                    ),
                ));
            }
            if let (Some(Price::Amount(price)), None) = (offer.pricing.fixed(), &self.issuer.0.exchange) {
                if price.unit() != Unit::Msat {
                    return error(format!(
                        "offer `{id}` costs {price}: give the issuer rates with `with_rates`"
                    ));
                }
            }
            let longest = sale::longest_token(&self.issuer.0, service, offer);
            if longest.is_none_or(|len| len > MAX_SOLD) {
                return error(format!(
                    "tokens of offer `{id}` would be too long: shorten its names and lists"
                ));
            }
        }
        Ok(())
    }

    /// The offer that the gate sells a request of so many units.
    fn sold_first(&self, units: u64) -> Option<&Arc<Offer>> {
        let opens = |offer: &&Arc<Offer>| opens(offer, self.min_tier, self.capability.as_deref(), units);
        self.offers.iter().filter(|offer| offer.is_for_sale).find(opens)
    }

    /// The pool of the offer that the gate sells a request of the fewest units.
    fn pool(&self, least: u64) -> Result<Option<Arc<Pool>>, Error> {
        let error = |what: &str| {
            Err(Error::new(ErrorKind::Offer, format!("gate `{}`: the pool of invoices {what}", self.service)))
        };
        if self.pool_size == 0 {
            return Ok(None);
        }
        if self.pool_size > MAX_POOL {
            return error(&format!("is larger than {MAX_POOL}"));
        }
        match self.sold_first(least) {
            Some(offer) if matches!(offer.pricing.fixed(), Some(Price::Amount(_))) => {
                let level = Level::new(&self.issuer.0.events, &self.service, &offer.id);
                Ok(Some(Arc::new(Pool::new(offer.id.clone(), self.pool_size, level))))
            }
            _ => error("needs an offer of a fixed price"),
        }
    }

    /// **Gives everything away**: admits what the gate would refuse, unpaid, and
    /// tells of it ([`Event::DryRun`](crate::Event::DryRun)), to see what a gate
    /// would do to the clients of a service before it does it.
    ///
    /// The handler finds a [`Grant`](crate::Grant) of
    /// [`Basis::DryRun`](crate::Basis::DryRun), which is not paid and knows of no
    /// token. Everything that the gate would not admit is admitted so: no
    /// credential, a broken or expired one, a pass above its rate, a use that
    /// cannot be counted, a price that cannot be computed, an outage. What is
    /// paid is admitted and debited as ever. Nothing is sold and the backend is
    /// asked for no invoice, so what would have failed in a sale (too many
    /// challenges, a request that cannot be bound, an outage of the backend) is
    /// not seen. A credential is
    /// taken out of the headers, also where it cannot be told which of two: then
    /// `Authorization` goes as a whole. The response is kept out of shared
    /// caches, and otherwise left as it is. A CORS preflight is answered by the
    /// gate as ever.
    ///
    /// Gates within one another are each in dry run or not: a gate further in
    /// that is not refuses what this one let pass.
    pub fn dangerous_dry_run(mut self) -> Self {
        self.dry_run = true;
        self
    }

    /// The gate.
    ///
    /// # Errors
    /// A name is not allowed or taken, the offers contradict each other or
    /// what the gate requires, a token would be too long, uses are to be counted
    /// without a ledger, invoices kept ready of a price that changes, or a page
    /// shown whose issuer has no route for it.
    pub fn build(self) -> Result<Gate, Error> {
        let service = &self.service;
        name::validate(service)?;
        let claim = self.claim.clone().ok_or_else(|| {
            Error::new(
                ErrorKind::DuplicateService,
                format!("`{service}` has a gate builder already: clone that one, or choose another name"),
            )
        })?;
        let error =
            |message: String| Err(Error::new(ErrorKind::Offer, format!("gate `{service}`: {message}")));
        self.check_offers(&claim)?;
        if let Some(capability) = &self.capability {
            name::validate(capability)?;
        }
        let least = match self.cost {
            Cost::Fixed(units) => units,
            Cost::Computed(_) => 0,
        };
        if self.sold_first(least).is_none() {
            return error("no offer sells the tier, capability and units that it requires".to_owned());
        }
        if let Some(unbound) =
            self.conditions.iter().find(|condition| !self.issuer.0.caveats.binds(condition))
        {
            return error(format!(
                "requires condition `{unbound}`, which the issuer's registry does not bind"
            ));
        }
        #[cfg(feature = "offers")]
        self.check_subject()?;
        let pool = self.pool(least)?;
        #[cfg(feature = "page")]
        let page = self.page()?;
        let known = known_capabilities(&self.offers, self.capability.as_ref());
        if known.len() > 64 {
            return error("more than 64 capabilities".to_owned());
        }
        if self.dry_run {
            event::is_in_dry_run(service);
        }
        let gate = Gate(Arc::new(GateInner {
            issuer: self.issuer,
            service: self.service.clone(),
            _claim: claim,
            offers: self.offers,
            min_tier: self.min_tier,
            capability: self.capability,
            conditions: self.conditions,
            known_capabilities: known.into(),
            cost: self.cost,
            free_if: self.free_if,
            charge_on: self.charge_on,
            forward_credential: self.forward_credential,
            free_requests: self.free_requests,
            pool,
            dry_run: self.dry_run,
            #[cfg(feature = "page")]
            page,
            #[cfg(feature = "offers")]
            subject: self.subject,
        }));
        #[cfg(feature = "offers")]
        if let Some(checkout) = &gate.0.issuer.0.checkout {
            checkout.add_gate(&gate);
        }
        Ok(gate)
    }
}
