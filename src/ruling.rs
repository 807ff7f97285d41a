//! What a credential opens: the steps of a request, from its token to its use.

use std::sync::Arc;

use http::request::Parts;

use crate::accounts::Unpaid;
use crate::answer::Refused;
use crate::caveat::{self, Claims, Scope, is_minted};
use crate::clock::unix;
use crate::credential::{self, Presented};
use crate::decision::Outer;
use crate::gate::GateInner;
use crate::grant::{Basis, CapabilitySet, GrantedToken, Taken};
use crate::ledger::{Debit, Reservation};
use crate::macaroon::{self, FORMAT_ACCOUNT, MAX_MACAROON, Verified};
use crate::offer::{Offer, Rate};
use crate::payment::Unconfirmed;
use crate::preimage::PaymentHash;
use crate::price::{Amount, Price};
use crate::refusal::{Malformed, Refusal};
use crate::sale;

/// What a credential opens, and what has to be asked first.
#[derive(Debug)]
pub(crate) struct Ruling {
    granted: Granted,
    /// The offer whose price has to be asked, and what the token may cost at most.
    unpriced: Option<(Arc<Offer>, Amount)>,
    unconfirmed: Option<Unconfirmed>,
    unpaid: Option<Unpaid>,
    rate: Option<(PaymentHash, Rate)>,
    debit: Option<Debit>,
}

impl Ruling {
    fn free() -> Self {
        let granted = Granted::free(Basis::FreePrice);
        Self { granted, unpriced: None, unconfirmed: None, unpaid: None, rate: None, debit: None }
    }

    /// Whether somebody has to be asked. What a gate further out asked, this one
    /// does not ask again.
    pub(crate) fn must_wait(&self, outer: Option<Outer>) -> bool {
        let takes = self.debit.is_some_and(|debit| debit.units > 0);
        let unknown = self.unconfirmed.is_some() || self.unpaid.is_some();
        self.unpriced.is_some() || (outer.is_none() && (unknown || takes))
    }

    pub(crate) fn into_token(self) -> (Option<GrantedToken>, Option<Debit>) {
        (self.granted.token, self.debit)
    }
}

/// What a grant will say.
#[derive(Debug)]
pub(crate) struct Granted {
    pub(crate) basis: Basis,
    pub(crate) token: Option<GrantedToken>,
    pub(crate) taken: Taken,
}

impl Granted {
    pub(crate) fn free(basis: Basis) -> Self {
        Self { basis, token: None, taken: Taken::Nothing }
    }
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
        let is_of_account = credential.macaroon.identifier().token_id.format() == FORMAT_ACCOUNT;
        if !has_preimage && !is_of_account && !issuer.payments.policy.admit_settled {
            return Err(Refusal::from(Malformed::NoPreimage).into());
        }
        let token = macaroon::verify(
            &credential.macaroon,
            credential.preimage.as_ref(),
            &keys,
            issuer.accounts.is_some(),
        )?;
        issuer.forget_pending(&token, now);
        if issuer.revocations().contains(token.payment_hash(), token.token_id(), &self.service) {
            return Err(Refusal::Revoked.into());
        }
        let scope = Scope { service: &self.service, registry: &issuer.caveats, head, now };
        let claims = caveat::check(&token, &scope)?;
        self.check_requirements(&token, &claims)?;
        let offer = self.bought_as(&token, &claims)?;
        let unpriced = match offer.map(|offer| check_price(offer, &claims, head)).transpose()? {
            Some(Priced::Free) => return Ok(Ruling::free()),
            Some(Priced::Unknown(offer, paid)) => Some((offer, paid)),
            Some(Priced::Paid) | None => None,
        };

        let paid_until = match (token.account(), &issuer.accounts) {
            (Some(account), Some(accounts)) => accounts.paid_until(account, unix(now)),
            _ => Some(u64::MAX),
        };
        let debit = match claims.uses {
            None => None,
            Some(_) if issuer.meter.is_none() => return Err(Refusal::Misconfigured.into()),
            // A ledger that lost its counts backs the tokens of its own keys alone.
            Some(_) if !keys.backs_metered(token.token_id().key_id()) => {
                return Err(Refusal::UnknownKey.into());
            }
            Some(uses) => Some(Debit {
                account: token.payment_hash().into(),
                units: self.cost.units(head)?,
                sold: uses.sold,
                limit: if is_of_account { 0 } else { uses.sold },
                ceiling: uses.ceiling,
                expires_at: if is_of_account { paid_until.unwrap_or_default() } else { claims.expiry.sold },
                valid_until: claims.expiry.earliest,
            }),
        };
        let basis = match (is_of_account, has_preimage) {
            (true, _) => Basis::Account,
            (false, true) => Basis::Preimage,
            (false, false) => Basis::Settled,
        };
        let unconfirmed = (!is_of_account).then(|| {
            issuer
                .payments
                .unconfirmed(token.payment_hash(), claims.handle, has_preimage, || issuer.limits.client(head))
        });
        let mut granted = self.granted(&token, &claims, offer);
        granted.valid_until = granted.valid_until.min(paid_until.unwrap_or(u64::MAX));
        Ok(Ruling {
            granted: Granted { basis, token: Some(granted), taken: debit.map_or(Taken::Pass, Taken::of) },
            unpriced,
            unconfirmed: unconfirmed.flatten(),
            unpaid: token.account().filter(|_| paid_until.is_none()).map(|account| Unpaid {
                account,
                asked_at: token.token_id().issued_at(),
                client: issuer.limits.client(head),
            }),
            rate: claims.rate.map(|rate| (token.payment_hash(), rate)),
            debit,
        })
    }

    /// What is granted where nobody has to be asked.
    pub(crate) fn pass(&self, ruling: Ruling, outer: Option<Outer>) -> Result<Granted, Refused> {
        match outer {
            // The outer gate has confirmed the payment, and it is remembered.
            Some(outer)
                if ruling.unconfirmed.is_some()
                    || ruling.unpaid.is_some()
                    || !outer.taken.covers(ruling.debit) =>
            {
                return Err(Refusal::NestedGate.into());
            }
            Some(_) => {}
            None => self.check_rate(&ruling)?,
        }
        Ok(ruling.granted)
    }

    /// Steps 5 to 8 where somebody has to be asked, one line each.
    pub(crate) async fn take(
        &self,
        head: &Parts,
        ruling: Ruling,
        outer: Option<Outer>,
    ) -> Result<(Granted, Option<(Reservation, Debit)>), Refused> {
        // Anybody has a token without a preimage for the asking.
        let is_anybodys = ruling.unpaid.is_some()
            || ruling.unconfirmed.as_ref().is_some_and(|payment| !payment.has_preimage);
        let mut ruling = if is_anybodys && ruling.unpriced.is_some() {
            sale::ask_unpaid(&self.issuer.0, head, ask_price(head, ruling)).await?
        } else {
            ask_price(head, ruling).await?
        };
        if outer.is_some() {
            return Ok((self.pass(ruling, outer)?, None));
        }
        self.confirm(&mut ruling).await?;
        self.check_rate(&ruling)?;
        let Ruling { mut granted, debit, .. } = ruling;
        let Some(debit) = debit.filter(|debit| debit.units > 0) else { return Ok((granted, None)) };
        let meter = self.issuer.0.meter.as_ref().expect("a debit is asked for where there is a ledger");
        let (reservation, remaining) = meter.reserve(debit).await?;
        if let Some(token) = &mut granted.token {
            token.remaining = Some(remaining);
        }
        Ok((granted, Some((reservation, debit))))
    }

    /// Asks the backend whether the token was paid for, or the ledger whether its
    /// account was, where that is not known.
    pub(crate) async fn confirm(&self, ruling: &mut Ruling) -> Result<(), Refused> {
        if let (Some(unpaid), Some(accounts)) = (&ruling.unpaid, &self.issuer.0.accounts) {
            let paid_until = accounts.confirm(unpaid, &self.issuer.0).await?;
            if let Some(token) = &mut ruling.granted.token {
                token.valid_until = token.valid_until.min(paid_until);
            }
            if let Some(debit) = &mut ruling.debit {
                debit.expires_at = paid_until;
            }
        }
        match &ruling.unconfirmed {
            Some(payment) => self.issuer.0.confirm(payment).await,
            None => Ok(()),
        }
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

    /// The offer a token was bought as; `None` where another service sold it.
    fn bought_as(&self, token: &Verified<'_>, claims: &Claims<'_>) -> Result<Option<&Arc<Offer>>, Refusal> {
        // Only this issuer writes a seller before the slash, for its own offers.
        if let Some((seller, _)) = claims.offer.split_once('/') {
            if self.issuer.0.revocations().would_revoke(token.token_id(), seller) {
                return Err(Refusal::Revoked);
            }
            return if claims.max_price.is_none() { Ok(None) } else { Err(Refusal::PriceTooHigh) };
        }
        let offer = self.offers.iter().find(|offer| *offer.id == *claims.offer);
        offer.map(Some).ok_or(Refusal::WrongOffer)
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
            sold_for: claims.sold_for,
            remaining: None,
            tier: claims.tier,
            capabilities: CapabilitySet { known: self.known_capabilities.clone(), held },
        }
    }
}

/// How a request's price compares with what its token was sold for.
enum Priced {
    Free,
    Paid,
    /// It has to be asked.
    Unknown(Arc<Offer>, Amount),
}

/// Compares what the request costs now, as the offer that the token was bought
/// as, with what was paid.
fn check_price(offer: &Arc<Offer>, claims: &Claims<'_>, head: &Parts) -> Result<Priced, Refused> {
    let is_computed = offer.pricing.is_computed();
    if is_computed && claims.sold_for.is_none() {
        // Free all the same, perhaps: what is sold next tells.
        return Err(Refusal::PriceTooHigh.into());
    }
    match (offer.pricing.price(head).transpose()?, claims.max_price) {
        (Some(Price::Free), _) => Ok(Priced::Free),
        (Some(price), Some(paid)) if !price.is_within(paid) => Err(Refusal::PriceTooHigh.into()),
        (Some(_), _) => Ok(Priced::Paid),
        (None, Some(paid)) => Ok(Priced::Unknown(offer.clone(), paid)),
        (None, None) => Err(Refusal::PriceTooHigh.into()),
    }
}

/// Asks for the price of a request, where that is not known.
async fn ask_price(head: &Parts, mut ruling: Ruling) -> Result<Ruling, Refused> {
    let Some((offer, paid)) = ruling.unpriced.take() else { return Ok(ruling) };
    match offer.pricing.ask(head).await? {
        Price::Free => Ok(Ruling::free()),
        price if price.is_within(paid) => Ok(ruling),
        Price::Amount(_) => Err(Refusal::PriceTooHigh.into()),
    }
}
