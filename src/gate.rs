//! One protected thing, and the one place where a request is judged.
//!
//! 1. caps and grammar (`credential.rs`)
//! 2. identifier, signature, preimage (`macaroon/verify.rs`)
//! 3. revocation (`ledger/revocation.rs`)
//! 4. caveats (`caveat/`), and what the gate requires
//! 5. the price, where it depends on the request (`pricer.rs`)
//! 6. the ledger, where uses are counted (`ledger/`)
//!
//! What does not pass is refused, and where a payment would mend it, sold
//! (`sale.rs`, `answer.rs`).

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{Response, StatusCode};

use crate::admission::{Admission, ChargeOn};
use crate::answer::{self, Refused};
use crate::caveat::{self, Bound, Claims, Scope, is_minted};
use crate::credential::{self, Presented};
use crate::error::{Error, ErrorKind};
use crate::grant::{Basis, CapabilitySet, Grant, GrantedToken};
use crate::issuer::{Claim, Issuer};
use crate::ledger::{Debit, Reservation};
use crate::macaroon::{self, MAX_MACAROON, Verified};
use crate::name;
use crate::offer::{Offer, Rate};
use crate::preimage::PaymentHash;
use crate::price::{Amount, Price};
use crate::refusal::Refusal;
use crate::sale;

/// Bytes that every token leaves its holder for caveats of their own.
const ROOM_TO_ATTENUATE: usize = 512;

/// One protected thing: a service name, the offers that open it, and what it
/// requires of a token. Cheap to clone.
///
/// ```
/// # #[cfg(feature = "dev")] {
/// use l402::{Access, DAY, DevBackend, Gate, Issuer, Offer, Price};
///
/// let issuer = Issuer::dev(&DevBackend::new());
/// let offer = Offer::new(Price::sat(1_000), Access::pass(30 * DAY)).with_capabilities(&["read", "write"]);
/// let api = Gate::builder(&issuer, "api", offer);
/// let read = api.clone().require_capability("read").build()?;
/// let write = api.require_capability("write").build()?;
/// # }
/// # Ok::<(), l402::Error>(())
/// ```
#[derive(Clone)]
pub struct Gate(pub(crate) Arc<GateInner>);

pub(crate) struct GateInner {
    pub(crate) issuer: Issuer,
    pub(crate) service: Arc<str>,
    _claim: Arc<Claim>,
    offers: Vec<Arc<Offer>>,
    min_tier: u8,
    capability: Option<String>,
    conditions: Vec<String>,
    known_capabilities: Arc<[String]>,
    cost: Cost,
    pub(crate) charge_on: ChargeOn,
    forward_credential: bool,
}

impl Gate {
    /// A gate that one offer opens.
    ///
    /// # Errors
    /// As [`GateBuilder::build`].
    pub fn new(issuer: &Issuer, service: &str, offer: Offer) -> Result<Self, Error> {
        Self::builder(issuer, service, offer).build()
    }

    /// Begins a gate, or several of one service: the builder can be cloned.
    /// The service name is `[a-z0-9-]{1,64}`; a second builder of the issuer
    /// with the same name does not build.
    pub fn builder(issuer: &Issuer, service: &str, offer: Offer) -> GateBuilder {
        GateBuilder {
            issuer: issuer.clone(),
            service: service.into(),
            claim: issuer.claim(service).map(Arc::new),
            offers: vec![Arc::new(offer)],
            min_tier: 0,
            capability: None,
            conditions: Vec::new(),
            cost: Cost::Fixed(1),
            charge_on: ChargeOn::NotServerError,
            forward_credential: false,
        }
    }

    /// Judges a request by its head: the way into the gate for a framework of
    /// one's own.
    ///
    /// The credential is taken out of the headers. On success, put
    /// [`Admission::grant`] where the handler finds it and
    /// [settle](Admission::settle) with the handler's response.
    ///
    /// # Errors
    /// The response to send in place of the handler's: a 402 with a fresh
    /// challenge, or what else the [`Refusal`] in its extensions says.
    ///
    /// # Cancel safety
    /// Dropped while it waits, it gives a use back that it had reserved.
    ///
    /// # Panics
    /// Outside a tokio runtime with time enabled, where an invoice has to be
    /// asked for or a ledger does not answer at once.
    pub async fn admit(&self, head: &mut Parts) -> Result<Admission, Response<Bytes>> {
        let decided = match self.judge(head) {
            Judged::Decided(decided) => decided,
            Judged::Undecided(pending) => self.decide(head, pending).await,
        };
        match decided {
            Decided::Admitted(admission) => Ok(admission),
            Decided::Refused(response) => Err(response),
            Decided::Payable(payable) => Err(self.sell(head, payable).await),
        }
    }

    /// Takes the credential out of a request that passes without being judged:
    /// the inner service sees none, as of every other request.
    pub(crate) fn let_pass(&self, head: &mut Parts) {
        // What is wrong with one is nobody's concern here.
        let _ = credential::take(&mut head.headers, self.0.forward_credential);
    }

    /// All of it that needs no waiting.
    pub(crate) fn judge(&self, head: &mut Parts) -> Judged {
        let presented = match head.extensions.get::<Grant>() {
            // An outer gate took the payment: this one judges the same token
            // again, and takes nothing.
            Some(outer) if outer.is_taken => return Judged::Decided(self.judge_again(outer, head)),
            Some(outer) if outer.presented.is_some() => Ok(outer.presented.clone()),
            _ => credential::take(&mut head.headers, self.0.forward_credential),
        };
        let presented = match presented {
            Ok(presented) => presented,
            Err(refusal) => return Judged::Decided(self.refuse(head, refusal.into(), None)),
        };
        let ruling = self.0.rule(presented.as_ref(), head).and_then(|ruling| {
            self.0.check_rate(&ruling)?;
            Ok(ruling)
        });
        Judged::Decided(match ruling {
            Ok(Ruling { grant, debit: Some(debit), .. }) if debit.units > 0 => {
                return Judged::Undecided(Pending { presented, grant, debit });
            }
            Ok(Ruling { grant, .. }) => self.admitted(grant, presented, None),
            Err(refused) => self.refuse(head, refused, presented),
        })
    }

    fn judge_again(&self, outer: &Grant, head: &Parts) -> Decided {
        let mut granted = match self.0.rule(outer.presented.as_ref(), head) {
            Ok(ruling) => ruling.grant,
            // What costs nothing needs no token.
            Err(refused) if refused.refusal.is_payable() && self.0.is_free(head) => Granted::FREE,
            Err(_) => {
                return Decided::Refused(answer::respond(&self.0, head, Refusal::NestedGate.into(), None));
            }
        };
        if let Some(token) = &mut granted.token {
            token.remaining = outer.remaining();
        }
        let grant = Grant { is_taken: true, ..self.grant(granted, outer.presented.clone()) };
        Decided::Admitted(Admission::new(self, grant, None))
    }

    /// Without a token that opens it, a request is sold one, or admitted where
    /// it costs nothing.
    fn refuse(&self, head: &Parts, refused: Refused, presented: Option<Presented>) -> Decided {
        let refused = if refused.refusal.is_payable() {
            match self.0.offer_for(head) {
                Ok((offer, Price::Amount(price))) => {
                    return Decided::Payable(Payable { refused, offer: offer.clone(), price });
                }
                Ok((_, Price::Free)) => return self.admitted(Granted::FREE, presented, None),
                Err(unpriced) => unpriced,
            }
        } else {
            refused
        };
        Decided::Refused(answer::respond(&self.0, head, refused, None))
    }

    /// Asks the ledger.
    pub(crate) async fn decide(&self, head: &Parts, pending: Pending) -> Decided {
        let Pending { presented, mut grant, debit } = pending;
        let meter = self.0.issuer.0.meter.as_ref().expect("a debit is asked for where there is a ledger");
        match meter.reserve(debit).await {
            Ok((reservation, remaining)) => {
                if let Some(token) = &mut grant.token {
                    token.remaining = Some(remaining);
                }
                self.admitted(grant, presented, Some((reservation, debit)))
            }
            Err(refused) => self.refuse(head, refused, presented),
        }
    }

    /// Asks the backend for an invoice, and answers with the challenge.
    pub(crate) async fn sell(&self, head: &Parts, payable: Payable) -> Response<Bytes> {
        let Payable { refused, offer, price } = payable;
        match sale::sell(&self.0, head, &offer, price).await {
            Ok(sold) => answer::respond(&self.0, head, refused, Some(&sold)),
            Err(refused) => answer::respond(&self.0, head, refused, None),
        }
    }

    fn admitted(
        &self,
        granted: Granted,
        presented: Option<Presented>,
        reserved: Option<(Reservation, Debit)>,
    ) -> Decided {
        Decided::Admitted(Admission::new(self, self.grant(granted, presented), reserved))
    }

    fn grant(&self, granted: Granted, presented: Option<Presented>) -> Grant {
        let Granted { basis, token, is_taken } = granted;
        Grant { service: self.0.service.clone(), basis, token, is_taken, presented }
    }
}

/// What a gate says of a request at once.
#[derive(Debug)]
pub(crate) enum Judged {
    Decided(Decided),
    /// The ledger has to be asked for the use.
    Undecided(Pending),
}

/// What becomes of a request.
#[expect(clippy::large_enum_variant, reason = "the admitted path allocates nothing")]
#[derive(Debug)]
pub(crate) enum Decided {
    Admitted(Admission),
    Refused(Response<Bytes>),
    /// Refused, and answered with a challenge: it never reaches the inner
    /// service, which need not be kept ready while the backend is asked.
    Payable(Payable),
}

/// A use that is to be asked for, and what is granted with it.
#[derive(Debug)]
pub(crate) struct Pending {
    presented: Option<Presented>,
    grant: Granted,
    debit: Debit,
}

/// A refusal that buying this offer at this price mends.
#[derive(Debug)]
pub(crate) struct Payable {
    refused: Refused,
    offer: Arc<Offer>,
    price: Amount,
}

/// What a credential opens, and what the ledger has to say first.
pub(crate) struct Ruling {
    grant: Granted,
    debit: Option<Debit>,
    rate: Option<(PaymentHash, Rate)>,
}

impl Ruling {
    pub(crate) fn into_token(self) -> (Option<GrantedToken>, Option<Debit>) {
        (self.grant.token, self.debit)
    }
}

/// What a grant will say.
#[derive(Debug)]
struct Granted {
    basis: Basis,
    token: Option<GrantedToken>,
    /// Not where a counted token is asked for no unit: a gate further in may
    /// ask for some.
    is_taken: bool,
}

impl Granted {
    const FREE: Self = Self { basis: Basis::FreePrice, token: None, is_taken: false };
}

impl GateInner {
    /// Steps 1 to 5, one line each.
    pub(crate) fn rule(&self, presented: Option<&Presented>, head: &Parts) -> Result<Ruling, Refused> {
        let issuer = &*self.issuer.0;
        let now = issuer.clock.now();
        let keys = issuer.keys.load();
        let mut buffer = [0; MAX_MACAROON];

        let credential = credential::read(presented.ok_or(Refusal::MissingCredential)?, &mut buffer)?;
        let token = macaroon::verify(&credential.macaroon, &credential.preimage, &keys)?;
        if issuer.revocations().contains(token.payment_hash(), token.token_id(), &self.service) {
            return Err(Refusal::Revoked.into());
        }
        let scope = Scope { service: &self.service, registry: &issuer.caveats, head, now };
        let claims = caveat::check(&token, &scope)?;
        self.check_requirements(&token, &claims)?;
        let (offer, price) = self.price(&token, &claims, head)?;
        if price == Some(Price::Free) {
            return Ok(Ruling { grant: Granted::FREE, debit: None, rate: None });
        }

        let debit = match claims.uses {
            None => None,
            Some(_) if issuer.meter.is_none() => return Err(Refusal::Misconfigured.into()),
            // A ledger that lost its counts backs the tokens of its own keys alone.
            Some(_) if !keys.backs_metered(token.token_id().key_id()) => {
                return Err(Refusal::UnknownKey.into());
            }
            Some(uses) => Some(Debit {
                account: token.payment_hash().into(),
                units: self.cost.units(head),
                limit: uses.sold,
                ceiling: uses.ceiling,
                expires_at: claims.expiry.sold,
                valid_until: claims.expiry.earliest,
            }),
        };
        let granted = self.granted(&token, &claims, offer);
        Ok(Ruling {
            grant: Granted {
                basis: Basis::Preimage,
                token: Some(granted),
                is_taken: debit.is_none_or(|debit| debit.units > 0),
            },
            debit,
            rate: claims.rate.map(|rate| (token.payment_hash(), rate)),
        })
    }

    /// Counts the request of a rated pass.
    fn check_rate(&self, ruling: &Ruling) -> Result<(), Refusal> {
        let Some((token, rate)) = ruling.rate else { return Ok(()) };
        let issuer = &*self.issuer.0;
        let checked = issuer.limits.rates.check(token, rate, issuer.clock.now());
        checked.map_err(|retry_after| Refusal::RateLimited { retry_after })
    }

    fn check_requirements(&self, token: &Verified<'_>, claims: &Claims<'_>) -> Result<(), Refusal> {
        if claims.tier < self.min_tier {
            return Err(Refusal::TierTooLow);
        }
        if self.capability.as_ref().is_some_and(|needed| !caveat::has_capability(claims.capabilities, needed))
        {
            return Err(Refusal::MissingCapability);
        }
        match self.conditions.iter().find(|condition| !is_minted(token, condition)) {
            Some(condition) => Err(Refusal::ConditionFailed(condition.as_str().into())),
            None => Ok(()),
        }
    }

    /// The offer a token was bought as, and what the request costs as that
    /// offer now. Both are unknown where another service sold the token.
    fn price(
        &self,
        token: &Verified<'_>,
        claims: &Claims<'_>,
        head: &Parts,
    ) -> Result<(Option<&Arc<Offer>>, Option<Price>), Refused> {
        // Only this issuer writes a seller before the slash, for its own offers.
        if let Some((seller, _)) = claims.offer.split_once('/') {
            if self.issuer.0.revocations().would_revoke(token.token_id(), seller) {
                return Err(Refusal::Revoked.into());
            }
            return if claims.max_price.is_none() {
                Ok((None, None))
            } else {
                Err(Refusal::PriceTooHigh.into())
            };
        }
        let offer = self.offers.iter().find(|offer| *offer.id == *claims.offer).ok_or(Refusal::WrongOffer)?;
        let price = offer.pricing.price(head)?;
        let within = claims.max_price.is_none_or(|paid| price.is_within(paid));
        if !within || (offer.pricing.is_computed() && !claims.price_is_bound) {
            return Err(Refusal::PriceTooHigh.into());
        }
        Ok((Some(offer), Some(price)))
    }

    fn granted(&self, token: &Verified<'_>, claims: &Claims<'_>, offer: Option<&Arc<Offer>>) -> GrantedToken {
        let known = self.known_capabilities.iter().enumerate();
        let held = known
            .filter(|(_, name)| caveat::has_capability(claims.capabilities, name))
            .fold(0, |held, (i, _)| held | 1 << i);
        GrantedToken {
            offer: offer.map_or_else(|| claims.offer.into(), |offer| offer.id.clone()),
            payment_hash: token.payment_hash(),
            token_id: token.token_id(),
            valid_until: claims.expiry.earliest,
            remaining: None,
            tier: claims.tier,
            capabilities: CapabilitySet { known: self.known_capabilities.clone(), held },
        }
    }

    /// The offers whose tokens open this request, the one that is sold first.
    pub(crate) fn sellable(&self, head: &Parts) -> impl Iterator<Item = &Arc<Offer>> {
        let units = self.cost.units(head);
        self.offers.iter().filter(move |offer| opens(offer, self.min_tier, self.capability.as_deref(), units))
    }

    /// The first offer that is enough for the gate, whatever a request costs.
    #[cfg(feature = "test-util")]
    pub(crate) fn first_offer(&self) -> &Offer {
        let mut enough =
            self.offers.iter().filter(|offer| opens(offer, self.min_tier, self.capability.as_deref(), 0));
        enough.next().expect("the gate was built with an offer that opens it")
    }

    /// The offer that this request is sold, and its price.
    fn offer_for(&self, head: &Parts) -> Result<(&Arc<Offer>, Price), Refused> {
        // A request that takes more units than any offer has cannot be paid for.
        let offer = self.sellable(head).next().ok_or(Refusal::NotForSale(StatusCode::BAD_REQUEST))?;
        Ok((offer, offer.pricing.price(head)?))
    }

    /// Whether the request costs nothing.
    fn is_free(&self, head: &Parts) -> bool {
        matches!(self.offer_for(head), Ok((_, Price::Free)))
    }

    /// Whether the request carries what this gate requires tokens to be bound to.
    pub(crate) fn requires_bound(&self, bound: &[Bound]) -> Result<(), Refusal> {
        match self.conditions.iter().find(|condition| !bound.iter().any(|bound| bound.is(condition))) {
            Some(condition) => Err(Refusal::Unbindable(condition.as_str().into())),
            None => Ok(()),
        }
    }
}

/// How many units a request takes.
#[derive(Clone)]
enum Cost {
    Fixed(u64),
    Computed(Arc<dyn Fn(&Parts) -> u64 + Send + Sync>),
}

impl Cost {
    fn units(&self, head: &Parts) -> u64 {
        match self {
            Self::Fixed(units) => *units,
            Self::Computed(units) => units(head),
        }
    }
}

impl fmt::Debug for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(units) => units.fmt(f),
            Self::Computed(_) => f.write_str("by the request"),
        }
    }
}

/// Whether what an offer sells is enough for these requirements.
fn opens(offer: &Offer, min_tier: u8, capability: Option<&str>, units: u64) -> bool {
    offer.tier >= min_tier
        && offer.access.max_uses().is_none_or(|sold| sold >= units)
        && capability.is_none_or(|needed| offer.capabilities.iter().any(|name| name == needed))
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate")
            .field("service", &self.0.service)
            .field("offers", &self.0.offers)
            .finish_non_exhaustive()
    }
}

/// Configures a [`Gate`]. Clones build gates of the same service.
#[derive(Clone, Debug)]
#[must_use]
pub struct GateBuilder {
    issuer: Issuer,
    service: Arc<str>,
    claim: Option<Arc<Claim>>,
    offers: Vec<Arc<Offer>>,
    min_tier: u8,
    capability: Option<String>,
    conditions: Vec<String>,
    cost: Cost,
    charge_on: ChargeOn,
    forward_credential: bool,
}

impl GateBuilder {
    /// Adds an offer that opens the gate too. The challenge sells the first
    /// offer that is enough for the gate; the body lists all that are.
    pub fn add_offer(mut self, offer: Offer) -> Self {
        self.offers.push(Arc::new(offer));
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
    /// token that is good.
    pub fn with_cost_fn(mut self, units: impl Fn(&Parts) -> u64 + Send + Sync + 'static) -> Self {
        self.cost = Cost::Computed(Arc::new(units));
        self
    }

    /// When a counted use is charged, [`ChargeOn::NotServerError`] unless set.
    pub fn with_charge_on(mut self, charge_on: ChargeOn) -> Self {
        self.charge_on = charge_on;
        self
    }

    /// Leaves the credential in the headers of an admitted request. The inner
    /// service then sees token and preimage, in values marked sensitive.
    pub fn forward_credential(mut self) -> Self {
        self.forward_credential = true;
        self
    }

    /// The gate.
    ///
    /// # Errors
    /// A name is not allowed or taken, the offers contradict each other or
    /// what the gate requires, a token would be too long, or uses are to be
    /// counted without a ledger.
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
        for (i, offer) in self.offers.iter().enumerate() {
            let id = &offer.id;
            offer.validate(service)?;
            if self.offers[..i].iter().any(|other| other.id == *id) {
                return error(format!("two offers have the id `{id}`: set `with_id`"));
            }
            if offer.is_metered() && self.issuer.0.meter.is_none() {
                return Err(Error::new(
                    ErrorKind::NoLedger,
                    format!(
                        "offer `{id}` of `{service}` counts uses: give the issuer a ledger with `with_ledger`, or sell a pass"
                    ),
                ));
            }
            let longest = sale::longest_token(service, offer, self.issuer.0.caveats.longest_bound());
            if longest.is_none_or(|len| len > MAX_MACAROON - ROOM_TO_ATTENUATE) {
                return error(format!(
                    "tokens of offer `{id}` would be too long: shorten its names and lists"
                ));
            }
        }
        if let Some(capability) = &self.capability {
            name::validate(capability)?;
        }
        let least = match self.cost {
            Cost::Fixed(units) => units,
            Cost::Computed(_) => 0,
        };
        if !self.offers.iter().any(|offer| opens(offer, self.min_tier, self.capability.as_deref(), least)) {
            return error("no offer sells the tier, capability and units that it requires".to_owned());
        }
        if let Some(unbound) =
            self.conditions.iter().find(|condition| !self.issuer.0.caveats.binds(condition))
        {
            return error(format!(
                "requires condition `{unbound}`, which the issuer's registry does not bind"
            ));
        }
        let mut known: Vec<_> = self
            .offers
            .iter()
            .flat_map(|offer| offer.capabilities.iter())
            .chain(&self.capability)
            .cloned()
            .collect();
        known.sort_unstable();
        known.dedup();
        if known.len() > 64 {
            return error("more than 64 capabilities".to_owned());
        }
        Ok(Gate(Arc::new(GateInner {
            issuer: self.issuer,
            service: self.service.clone(),
            _claim: claim,
            offers: self.offers,
            min_tier: self.min_tier,
            capability: self.capability,
            conditions: self.conditions,
            known_capabilities: known.into(),
            cost: self.cost,
            charge_on: self.charge_on,
            forward_credential: self.forward_credential,
        })))
    }
}
