//! Admitting the application's own user, from the accounts that were paid for.

use std::sync::Arc;

use http::request::Parts;

use super::purchase::is_for_subjects;
use super::subject::{Subject, subject_account};
use crate::answer::Refused;
use crate::gate::GateInner;
use crate::grant::{Basis, CapabilitySet, Grant, GrantedToken, Taken};
use crate::ledger::{AccountId, Debit, Reservation};
use crate::macaroon::TokenId;
use crate::offer::Offer;
use crate::preimage::PaymentHash;
use crate::refusal::Refusal;
use crate::ruling::Granted;

impl GateInner {
    /// The user that a request without a token is of.
    pub(crate) fn subject(&self, head: &Parts) -> Option<Subject> {
        self.subject.as_ref()?.of(head)
    }

    /// Passes first, then counted uses, in the order of the offers.
    pub(crate) async fn take_subject(
        &self,
        head: &Parts,
        subject: &Subject,
    ) -> Result<(Granted, Option<(Reservation, Debit)>), Refused> {
        let units = self.cost.units(head)?;
        let mut offers: Vec<_> = self.enough(head)?.filter(|offer| is_for_subjects(offer)).cloned().collect();
        offers.sort_by_key(|offer| offer.is_metered());
        let mut why = Refusal::MissingCredential;
        for offer in offers {
            match self.take_of_offer(&offer, subject, units).await {
                Ok(taken) => return Ok(taken),
                Err(Refused { refusal: Refusal::MissingCredential, .. }) => {}
                // Another offer of the user's may have some left.
                Err(Refused { refusal: refusal @ (Refusal::UsedUp | Refusal::Revoked), .. }) => why = refusal,
                Err(refused) => return Err(refused),
            }
        }
        Err(why.into())
    }

    async fn take_of_offer(
        &self,
        offer: &Arc<Offer>,
        subject: &Subject,
        units: u64,
    ) -> Result<(Granted, Option<(Reservation, Debit)>), Refused> {
        let issuer = &*self.issuer.0;
        let (Some(accounts), Some(meter)) = (&issuer.accounts, &issuer.meter) else {
            return Err(Refusal::MissingCredential.into());
        };
        let account = subject_account(issuer.network, &self.service, &offer.id, subject.as_bytes());
        let until = accounts.ask(account, issuer, 0, || Ok(())).await?.ok_or(Refusal::MissingCredential)?;
        let now = issuer.clock.now();
        let id = issuer.token_id_of_now();
        let hash = PaymentHash::from_bytes(*account.as_bytes());
        if issuer.revocations().contains(hash, id, &self.service) {
            return Err(Refusal::Revoked.into());
        }
        let Some(sold) = offer.access.max_uses() else {
            if let Some(rate) = offer.access.max_rate() {
                let checked = issuer.limits.take_pass(hash, rate, now);
                checked.map_err(|retry_after| Refusal::RateLimited { retry_after })?;
            }
            return Ok((self.granted_to(offer, account, id, until, Taken::Pass), None));
        };
        let (ceiling, expires_at, valid_until) = (u64::MAX, until, until);
        let debit = Debit { account, units, sold, limit: 0, ceiling, expires_at, valid_until };
        let mut granted = self.granted_to(offer, account, id, until, Taken::of(debit));
        if units == 0 {
            return Ok((granted, None));
        }
        let (reservation, remaining) = meter.reserve(debit).await?;
        if let Some(token) = &mut granted.token {
            token.remaining = Some(remaining);
        }
        Ok((granted, Some((reservation, debit))))
    }

    fn granted_to(
        &self,
        offer: &Arc<Offer>,
        account: AccountId,
        token_id: TokenId,
        valid_until: u64,
        took: Taken,
    ) -> Granted {
        let known = self.known_capabilities.iter().enumerate();
        let held =
            known.filter(|(_, name)| offer.capabilities.contains(name)).fold(0, |held, (i, _)| held | 1 << i);
        let token = GrantedToken {
            offer: offer.id.clone(),
            payment_hash: PaymentHash::from_bytes(*account.as_bytes()),
            token_id,
            valid_until,
            sold_for: None,
            remaining: None,
            tier: offer.tier,
            capabilities: CapabilitySet { known: self.known_capabilities.clone(), held },
        };
        Granted { basis: Basis::Subject, token: Some(token), taken: took }
    }

    /// What a gate of the same service further out granted a user, where it is
    /// enough for this one.
    pub(crate) fn granted_within(&self, head: &Parts) -> Option<Granted> {
        let outer = head.extensions.get::<Grant>()?;
        if outer.basis != Basis::Subject || outer.service != self.service {
            return None;
        }
        let token = outer.token.clone()?;
        let offer = self.enough(head).ok()?.find(|offer| offer.id == token.offer)?.clone();
        let units = self.cost.units(head).ok()?;
        let covers = match outer.taken {
            Taken::Pass => true,
            Taken::Units { units: spent, .. } => units <= spent,
            Taken::Nothing => units == 0,
        };
        let account = AccountId::from(token.payment_hash);
        covers.then(|| self.granted_to(&offer, account, token.token_id, token.valid_until, outer.taken))
    }
}
