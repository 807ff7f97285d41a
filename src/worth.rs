//! What an admitted request used up, for whoever counts.

use crate::event::Event;
use crate::gate::GateInner;
use crate::grant::Grant;
use crate::ledger::Debit;
use crate::price::{Price, Unit};

impl GateInner {
    pub(crate) fn tell_admission(&self, grant: &Grant, debit: Option<&Debit>) {
        self.issuer.0.events.tell(|| Event::Admission {
            service: &self.service,
            offer: grant.offer(),
            basis: grant.basis,
            units: debit.map_or(0, |debit| debit.units),
            remaining: grant.remaining(),
            worth_msat: debit.and_then(|debit| self.worth_msat(grant, debit)),
        });
    }

    /// The part of its token's price that a debit uses up.
    fn worth_msat(&self, grant: &Grant, debit: &Debit) -> Option<u64> {
        let token = grant.token.as_ref()?;
        let price = match token.sold_for {
            Some(price) => price,
            None => match self.offers.iter().find(|offer| offer.id == token.offer)?.pricing.fixed()? {
                Price::Amount(price) => price,
                Price::Free => return None,
            },
        };
        let msat = u128::from(price.value()) * u128::from(debit.units) / u128::from(debit.sold.max(1));
        (price.unit() == Unit::Msat).then(|| u64::try_from(msat).unwrap_or(u64::MAX))
    }
}
