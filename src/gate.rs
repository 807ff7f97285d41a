//! One protected thing, and the one place where a request is judged.
//!
//! 1. caps and grammar (`credential.rs`)
//! 2. identifier, signature, preimage (`macaroon/verify.rs`)
//! 3. revocation (`ledger/revocation.rs`)
//! 4. caveats (`caveat/`), and what the gate requires
//! 5. the price, where it depends on the request (`pricer.rs`)
//! 6. the backend, where a preimage proves no payment (`payment.rs`)
//! 7. the rate of a pass (`limit/`)
//! 8. the ledger, where uses are counted (`ledger/`)
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
use crate::error::Error;
use crate::gate_builder::{Cost, GateBuilder, opens};
use crate::grant::{Basis, CapabilitySet, Grant, GrantedToken, Taken};
use crate::issuer::{Claim, Issuer};
use crate::ledger::{Debit, Reservation};
use crate::limit::{FreeRequests, Pool};
use crate::macaroon::{self, MAX_MACAROON, Verified};
use crate::offer::{Offer, Rate};
use crate::payment::Unconfirmed;
use crate::preimage::PaymentHash;
use crate::price::{Amount, Price};
use crate::refusal::{Malformed, Refusal};
use crate::sale;

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
    pub(crate) _claim: Arc<Claim>,
    pub(crate) offers: Vec<Arc<Offer>>,
    pub(crate) min_tier: u8,
    pub(crate) capability: Option<String>,
    pub(crate) conditions: Vec<String>,
    pub(crate) known_capabilities: Arc<[String]>,
    pub(crate) cost: Cost,
    pub(crate) charge_on: ChargeOn,
    pub(crate) forward_credential: bool,
    pub(crate) free_requests: Option<FreeRequests>,
    pub(crate) pool: Option<Arc<Pool>>,
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
        GateBuilder::new(issuer, service, offer)
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
            Decided::Admitted(admission) => {
                admission.forward_credential(head);
                Ok(admission)
            }
            Decided::Refused(response) => Err(response),
            Decided::Payable(payable) => Err(self.sell(head, payable).await),
        }
    }

    /// All of it that needs no waiting.
    pub(crate) fn judge(&self, head: &mut Parts) -> Judged {
        let presented = match head.extensions.get::<Grant>() {
            // An outer gate took the payment: this one judges the same token
            // again, and takes nothing.
            Some(outer) if outer.taken != Taken::Nothing => {
                return Judged::Decided(self.judge_again(outer, head));
            }
            Some(outer) if outer.presented.is_some() => Ok(outer.presented.clone()),
            _ => credential::take(&mut head.headers),
        };
        let presented = match presented {
            Ok(presented) => presented,
            Err(refusal) => return Judged::Decided(self.refuse(head, refusal.into(), None)),
        };
        let ruling = match self.0.rule(presented.as_ref(), head) {
            Ok(ruling) => ruling,
            Err(refused) => return Judged::Decided(self.refuse(head, refused, presented)),
        };
        if ruling.must_wait() {
            return Judged::Undecided(Pending { presented, ruling });
        }
        Judged::Decided(match self.0.check_rate(&ruling) {
            Ok(()) => self.admitted(ruling.grant, presented, None),
            Err(refusal) => self.refuse(head, refusal.into(), presented),
        })
    }

    fn judge_again(&self, outer: &Grant, head: &Parts) -> Decided {
        let mut granted = match self.0.rule(outer.presented.as_ref(), head) {
            // The outer gate has confirmed the payment, and it is remembered.
            Ok(ruling) if ruling.unconfirmed.is_none() && outer.taken.covers(ruling.debit) => ruling.grant,
            Ok(_) => return self.refuse(head, Refusal::NestedGate.into(), None),
            // What costs nothing needs no token.
            Err(refused) if refused.refusal.is_payable() && self.0.is_free(head) => Granted::FREE,
            // A second payment would not mend what the first one did not open.
            Err(refused) if refused.refusal.concerns_token() => {
                return self.refuse(head, Refused::because(Refusal::NestedGate, refused.refusal), None);
            }
            Err(refused) => return self.refuse(head, refused, None),
        };
        if let Some(token) = &mut granted.token {
            token.remaining = outer.remaining();
        }
        granted.taken = outer.taken;
        self.admitted(granted, outer.presented.clone(), None)
    }

    /// Without a token that opens it, a request is sold one, or admitted where
    /// it costs nothing.
    fn refuse(&self, head: &Parts, refused: Refused, presented: Option<Presented>) -> Decided {
        let refused = if refused.refusal.is_payable() {
            match self.0.offer_for(head) {
                Ok((_, Price::Amount(_)))
                    if refused.refusal == Refusal::MissingCredential && self.0.takes_free_request(head) =>
                {
                    return self.admitted(Granted::FREE_TIER, None, None);
                }
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

    /// The steps that wait: backend and ledger.
    pub(crate) async fn decide(&self, head: &Parts, pending: Pending) -> Decided {
        let Pending { presented, ruling } = pending;
        match self.0.take(ruling).await {
            Ok((granted, reserved)) => self.admitted(granted, presented, reserved),
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
        let Granted { basis, token, taken } = granted;
        Grant { service: self.0.service.clone(), basis, token, taken, presented }
    }
}

/// What a gate says of a request at once.
#[derive(Debug)]
pub(crate) enum Judged {
    Decided(Decided),
    /// The backend or the ledger has to be asked.
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

/// A credential that is good, if backend and ledger say so too.
#[derive(Debug)]
pub(crate) struct Pending {
    presented: Option<Presented>,
    ruling: Ruling,
}

/// A refusal that buying this offer at this price mends.
#[derive(Debug)]
pub(crate) struct Payable {
    refused: Refused,
    offer: Arc<Offer>,
    price: Amount,
}

/// What a credential opens, and what has to be asked first.
#[derive(Debug)]
pub(crate) struct Ruling {
    grant: Granted,
    unconfirmed: Option<Unconfirmed>,
    rate: Option<(PaymentHash, Rate)>,
    debit: Option<Debit>,
}

impl Ruling {
    const FREE: Self = Self { grant: Granted::FREE, unconfirmed: None, rate: None, debit: None };

    fn must_wait(&self) -> bool {
        self.unconfirmed.is_some() || self.debit.is_some_and(|debit| debit.units > 0)
    }

    pub(crate) fn into_token(self) -> (Option<GrantedToken>, Option<Debit>) {
        (self.grant.token, self.debit)
    }
}

/// What a grant will say.
#[derive(Debug)]
struct Granted {
    basis: Basis,
    token: Option<GrantedToken>,
    taken: Taken,
}

impl Granted {
    const FREE: Self = Self { basis: Basis::FreePrice, token: None, taken: Taken::Nothing };
    const FREE_TIER: Self = Self { basis: Basis::FreeTier, ..Self::FREE };
}

impl GateInner {
    /// Steps 1 to 5, one line each.
    pub(crate) fn rule(&self, presented: Option<&Presented>, head: &Parts) -> Result<Ruling, Refused> {
        let issuer = &*self.issuer.0;
        let now = issuer.clock.now();
        let keys = issuer.keys.load();
        let mut buffer = [0; MAX_MACAROON];

        let credential = credential::read(presented.ok_or(Refusal::MissingCredential)?, &mut buffer)?;
        let has_preimage = credential.preimage.is_some();
        if !has_preimage && !issuer.payments.policy.admit_settled {
            return Err(Refusal::from(Malformed::NoPreimage).into());
        }
        let token = macaroon::verify(&credential.macaroon, credential.preimage.as_ref(), &keys)?;
        issuer.forget_pending(&token, now);
        if issuer.revocations().contains(token.payment_hash(), token.token_id(), &self.service) {
            return Err(Refusal::Revoked.into());
        }
        let scope = Scope { service: &self.service, registry: &issuer.caveats, head, now };
        let claims = caveat::check(&token, &scope)?;
        self.check_requirements(&token, &claims)?;
        let (offer, price) = self.price(&token, &claims, head)?;
        if price == Some(Price::Free) {
            return Ok(Ruling::FREE);
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
                basis: if has_preimage { Basis::Preimage } else { Basis::Settled },
                token: Some(granted),
                taken: debit.map_or(Taken::Pass, Taken::of),
            },
            unconfirmed: issuer.payments.unconfirmed(
                token.payment_hash(),
                claims.handle,
                has_preimage,
                || issuer.limits.client(head),
            ),
            rate: claims.rate.map(|rate| (token.payment_hash(), rate)),
            debit,
        })
    }

    /// Steps 6 to 8, one line each.
    async fn take(&self, ruling: Ruling) -> Result<(Granted, Option<(Reservation, Debit)>), Refused> {
        self.confirm(&ruling).await?;
        self.check_rate(&ruling)?;
        let Ruling { mut grant, debit, .. } = ruling;
        let Some(debit) = debit.filter(|debit| debit.units > 0) else { return Ok((grant, None)) };
        let meter = self.issuer.0.meter.as_ref().expect("a debit is asked for where there is a ledger");
        let (reservation, remaining) = meter.reserve(debit).await?;
        if let Some(token) = &mut grant.token {
            token.remaining = Some(remaining);
        }
        Ok((grant, Some((reservation, debit))))
    }

    /// Asks the backend whether the token was paid for, where that is not known.
    pub(crate) async fn confirm(&self, ruling: &Ruling) -> Result<(), Refused> {
        let Some(payment) = &ruling.unconfirmed else { return Ok(()) };
        let issuer = &*self.issuer.0;
        issuer.payments.confirm(payment, &*issuer.backend, &*issuer.clock, &issuer.limits).await
    }

    /// Counts the request of a rated pass.
    fn check_rate(&self, ruling: &Ruling) -> Result<(), Refusal> {
        let Some((token, rate)) = ruling.rate else { return Ok(()) };
        let issuer = &*self.issuer.0;
        let checked = issuer.limits.take_pass(token, rate, issuer.clock.now());
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

    /// Whether the request is one of those that its client has free, and
    /// counts it.
    fn takes_free_request(&self, head: &Parts) -> bool {
        let issuer = &*self.issuer.0;
        self.free_requests
            .is_some_and(|free| issuer.limits.take_free(free, &self.service, head, issuer.clock.now()))
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

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate")
            .field("service", &self.0.service)
            .field("offers", &self.0.offers)
            .finish_non_exhaustive()
    }
}
