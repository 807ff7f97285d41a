//! One protected thing, and the one place where a request is judged.
//!
//! 1. caps and grammar (`credential.rs`); a request that the gate lets pass
//!    free goes no further
//! 2. identifier, signature, preimage (`macaroon/verify.rs`)
//! 3. revocation (`ledger/revocation.rs`)
//! 4. caveats (`caveat/`), and what the gate requires
//! 5. the price, where it depends on the request (`pricer.rs`)
//! 6. the backend, where a preimage proves no payment (`payment.rs`)
//! 7. the rate of a pass (`limit/`)
//! 8. the ledger, where uses are counted (`ledger/`)
//!
//! Steps 2 to 8 stand in `ruling.rs`, in this order.
//! What does not pass is refused, and where a payment would mend it, sold
//! (`sale.rs`, `answer.rs`).

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{Response, StatusCode};

use crate::admission::{Admission, ChargeOn};
use crate::answer::{self, Refused};
use crate::caveat::Bound;
#[cfg(feature = "offers")]
use crate::checkout::Listing;
use crate::claim::Claim;
use crate::credential;
#[cfg(all(feature = "offers", feature = "page"))]
use crate::credential::Presented;
use crate::decision::{Bearer, Decided, Judged, Outer, Payable, Pending, Unpriced};
use crate::demand::{Cost, FreeIf, opens};
use crate::error::Error;
use crate::event;
use crate::gate_builder::GateBuilder;
use crate::grant::{Basis, Grant, Taken};
use crate::issuer::Issuer;
use crate::ledger::{Debit, Reservation};
use crate::limit::{FreeRequests, Pool};
use crate::offer::Offer;
use crate::price::Price;
use crate::pricer::PriceError;
use crate::refusal::Refusal;
use crate::ruling::Granted;
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
    pub(crate) free_if: Option<FreeIf>,
    pub(crate) charge_on: ChargeOn,
    pub(crate) forward_credential: bool,
    pub(crate) free_requests: Option<FreeRequests>,
    pub(crate) pool: Option<Arc<Pool>>,
    pub(crate) dry_run: bool,
    #[cfg(feature = "page")]
    pub(crate) page: Option<Arc<crate::page::Page>>,
    #[cfg(feature = "offers")]
    pub(crate) subject: Option<crate::checkout::SubjectFn>,
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
    /// The service name is `[a-z0-9-]{1,64}` ([`service_name`](crate::service_name)
    /// makes one of any text); a second builder of the issuer
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
        #[cfg(feature = "page")]
        let kept = self.0.page.as_ref().and_then(|_| credential::take_cookie(head, &self.0.service));
        #[cfg(not(feature = "page"))]
        let kept = None;
        let bearer = match head.extensions.get::<Grant>() {
            // An outer gate took the payment: this one judges the same token
            // again, and takes nothing.
            Some(outer) if outer.taken != Taken::Nothing => Bearer {
                presented: outer.presented.clone(),
                outer: Some(Outer { taken: outer.taken, remaining: outer.remaining() }),
            },
            Some(outer) if outer.presented.is_some() => Bearer::of(outer.presented.clone()),
            _ => match credential::take(&mut head.headers, self.0.issuer.takes_bearers()) {
                Ok(presented) => Bearer::of(presented.or(kept)),
                Err(refusal) => {
                    if self.0.dry_run {
                        credential::discard(&mut head.headers, self.0.issuer.takes_bearers());
                    }
                    return self.refuse(head, Bearer::of(None), refusal.into()).into();
                }
            },
        };
        if bearer.outer.is_none() && self.0.lets_pass(head) {
            return Judged::Decided(self.admitted(Granted::free(Basis::FreeIf), bearer, None));
        }
        #[cfg(feature = "offers")]
        if bearer.presented.is_none() {
            if bearer.outer.is_none() {
                if let Some(subject) = self.0.subject(head) {
                    return Judged::Undecided(Pending::Subject(bearer, subject));
                }
            } else if let Some(granted) = self.0.granted_within(head) {
                return Judged::Decided(self.admitted(granted, bearer, None));
            }
        }
        let passed = match self.0.rule(bearer.presented.as_ref(), head) {
            Ok(ruling) if ruling.must_wait(bearer.outer) => {
                return Judged::Undecided(Pending::Ruled(bearer, ruling));
            }
            Ok(ruling) => self.0.pass(ruling, bearer.outer),
            Err(refused) => Err(refused),
        };
        #[cfg(all(feature = "offers", feature = "page"))]
        if let (Err(_), Some(subject)) = (&passed, self.subject_behind(&bearer, head)) {
            return Judged::Undecided(Pending::Subject(Bearer::of(None), subject));
        }
        match passed {
            Ok(granted) => Judged::Decided(self.admitted(granted, bearer, None)),
            Err(refused) => self.refuse(head, bearer, refused).into(),
        }
    }

    /// The steps that wait: pricer, backend and ledger.
    pub(crate) async fn decide(&self, head: &Parts, pending: Pending) -> Decided {
        event::in_span("decide", &self.0.service, self.ask(head, pending)).await
    }

    async fn ask(&self, head: &Parts, pending: Pending) -> Decided {
        let unpriced = match pending {
            Pending::Unpriced(unpriced) => unpriced,
            #[cfg(feature = "offers")]
            Pending::Subject(bearer, subject) => match self.0.take_subject(head, &subject).await {
                Ok((granted, reserved)) => return self.admitted(granted, bearer, reserved),
                Err(refused) => match self.refuse(head, bearer, refused) {
                    Ok(decided) => return decided,
                    Err(unpriced) => unpriced,
                },
            },
            Pending::Ruled(bearer, ruling) => match self.0.take(head, ruling, bearer.outer).await {
                Ok((granted, reserved)) => return self.admitted(granted, bearer, reserved),
                Err(refused) => {
                    #[cfg(all(feature = "offers", feature = "page"))]
                    if let Some(subject) = self.subject_behind(&bearer, head) {
                        let pending = Pending::Subject(Bearer::of(None), subject);
                        return Box::pin(self.ask(head, pending)).await;
                    }
                    match self.refuse(head, bearer, refused) {
                        Ok(decided) => return decided,
                        Err(unpriced) => unpriced,
                    }
                }
            },
        };
        let Unpriced { bearer, refused, offer } = *unpriced;
        let question = offer.pricing.ask(head);
        let price = match bearer.outer {
            Some(_) => question.await,
            None => sale::ask_unpaid(&self.0.issuer.0, head, question).await,
        };
        self.sell_at(head, bearer, refused, price.map(|price| (offer, price)))
    }

    /// The user whose browser kept something that does not open this.
    #[cfg(all(feature = "offers", feature = "page"))]
    fn subject_behind(&self, bearer: &Bearer, head: &Parts) -> Option<crate::checkout::Subject> {
        let is_kept = bearer.outer.is_none() && bearer.presented.as_ref().is_some_and(Presented::is_cookie);
        if is_kept { self.0.subject(head) } else { None }
    }

    /// Without a token that opens it, a request is sold one, or admitted where
    /// it costs nothing.
    fn refuse(&self, head: &Parts, bearer: Bearer, refused: Refused) -> Result<Decided, Box<Unpriced>> {
        #[cfg(feature = "page")]
        let refused = bearer.excuse(refused);
        if bearer.outer.is_some() && self.0.lets_pass(head) {
            return Ok(self.admitted(Granted::free(Basis::FreeIf), bearer, None));
        }
        if !refused.refusal.is_payable() {
            return Ok(self.answer(head, bearer, refused));
        }
        let priced = match self.0.offer_for(head) {
            Ok(offer) => match offer.pricing.price(head) {
                Some(price) => price.map(|price| (offer.clone(), price)),
                None => return Err(Box::new(Unpriced { bearer, refused, offer: offer.clone() })),
            },
            Err(unsold) => Err(unsold),
        };
        Ok(self.sell_at(head, bearer, refused, priced))
    }

    fn sell_at(
        &self,
        head: &Parts,
        bearer: Bearer,
        refused: Refused,
        priced: Result<(Arc<Offer>, Price), Refused>,
    ) -> Decided {
        match priced {
            // What costs nothing needs no token.
            Ok((_, Price::Free)) => self.admitted(Granted::free(Basis::FreePrice), bearer, None),
            // A second payment would not mend what the first one did not open.
            _ if bearer.outer.is_some() => self.answer(head, bearer, refused),
            Ok(_) if refused.refusal == Refusal::MissingCredential && self.0.takes_free_request(head) => {
                self.admitted(Granted::free(Basis::FreeTier), bearer, None)
            }
            Ok(_) if self.0.dry_run => self.answer(head, bearer, refused),
            Ok((offer, Price::Amount(price))) => Decided::Payable(Payable {
                refused,
                offer,
                price,
                #[cfg(feature = "offers")]
                presented: bearer.presented,
            }),
            Err(unpriced) => self.answer(head, bearer, unpriced),
        }
    }

    fn answer(&self, head: &Parts, bearer: Bearer, refused: Refused) -> Decided {
        let refused = if bearer.outer.is_some() && refused.refusal.concerns_token() {
            Refused::because(Refusal::NestedGate, refused.refusal)
        } else {
            refused
        };
        if self.0.dry_run {
            let Refused { refusal, cause } = &refused;
            self.0.issuer.0.events.would_refuse(&self.0.service, refusal, cause.as_ref());
            return self.admitted(Granted::free(Basis::DryRun), bearer, None);
        }
        Decided::Refused(answer::respond(&self.0, head, refused, None))
    }

    /// Asks the backend for an invoice, and answers with the challenge.
    pub(crate) async fn sell(&self, head: &Parts, payable: Payable) -> Response<Bytes> {
        let Payable { refused, offer, price, .. } = payable;
        let sale = async {
            match sale::sell(&self.0, head, &offer, price).await {
                #[cfg(feature = "offers")]
                Ok(mut sold) => {
                    if !answer::is_grpc_call(head) {
                        let buyer = self.0.buyer(payable.presented.as_ref(), head);
                        sold.listing = Listing::new(&self.0, head, buyer, &sold).await.map(Arc::new);
                    }
                    answer::respond(&self.0, head, refused, Some(&sold))
                }
                #[cfg(not(feature = "offers"))]
                Ok(sold) => answer::respond(&self.0, head, refused, Some(&sold)),
                Err(refused) => answer::respond(&self.0, head, refused, None),
            }
        };
        event::in_span("sell", &self.0.service, sale).await
    }

    fn admitted(&self, granted: Granted, bearer: Bearer, reserved: Option<(Reservation, Debit)>) -> Decided {
        let Granted { basis, mut token, mut taken } = granted;
        if let Some(outer) = bearer.outer {
            taken = outer.taken;
            if let Some(token) = &mut token {
                token.remaining = outer.remaining;
            }
        }
        let (service, clock) = (self.0.service.clone(), self.0.issuer.0.clock.clone());
        let grant = Grant { service, basis, token, taken, presented: bearer.presented, clock };
        self.0.tell_admission(&grant, reserved.as_ref().map(|(_, debit)| debit));
        Decided::Admitted(Admission::new(self, grant, reserved))
    }
}

impl GateInner {
    /// The offers whose tokens open this request.
    pub(crate) fn enough(&self, head: &Parts) -> Result<impl Iterator<Item = &Arc<Offer>>, PriceError> {
        let units = self.cost.units(head)?;
        let capability = self.capability.as_deref();
        Ok(self.offers.iter().filter(move |offer| opens(offer, self.min_tier, capability, units)))
    }

    /// Those of them that are for sale, the one that is sold first.
    pub(crate) fn sellable(&self, head: &Parts) -> Result<impl Iterator<Item = &Arc<Offer>>, PriceError> {
        Ok(self.enough(head)?.filter(|offer| offer.is_for_sale))
    }

    /// The first offer that is enough for the gate, whatever a request costs.
    #[cfg(feature = "test-util")]
    pub(crate) fn first_offer(&self) -> &Offer {
        let opens = |offer: &&Arc<Offer>| opens(offer, self.min_tier, self.capability.as_deref(), 0);
        self.offers
            .iter()
            .filter(|offer| offer.is_for_sale)
            .find(opens)
            .expect("the gate was built with an offer that opens it")
    }

    /// The offer that this request is sold.
    fn offer_for(&self, head: &Parts) -> Result<&Arc<Offer>, Refused> {
        // A request that takes more units than any offer has cannot be paid for.
        self.sellable(head)?.next().ok_or(Refusal::NotForSale(StatusCode::BAD_REQUEST).into())
    }

    /// Whether the request is one of those that its client has free, and
    /// counts it.
    fn takes_free_request(&self, head: &Parts) -> bool {
        let issuer = &*self.issuer.0;
        self.free_requests
            .is_some_and(|free| issuer.limits.take_free(free, &self.service, head, issuer.clock.now()))
    }

    pub(crate) fn is_priced_by_request(&self) -> bool {
        self.offers.iter().any(|offer| offer.pricing.is_computed())
    }

    /// Whether the gate lets this request pass, whatever it costs.
    fn lets_pass(&self, head: &Parts) -> bool {
        self.free_if.as_ref().is_some_and(|free_if| free_if.holds(head))
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
