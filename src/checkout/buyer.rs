//! Whose account a payment from a 402 is for.

use http::request::Parts;

use super::context::Buyer;
use crate::caveat::Caveat;
use crate::credential::{self, Presented};
use crate::gate::GateInner;
use crate::macaroon::{self, MAX_MACAROON};

impl GateInner {
    /// The user, or the account of the token that was presented, be it used up; not
    /// where somebody has restricted it.
    pub(crate) fn buyer(&self, presented: Option<&Presented>, head: &Parts) -> Buyer {
        match presented {
            Some(presented) => self.holder(presented).unwrap_or(Buyer::Anybody),
            None => match self.subject.as_ref().and_then(|subject| subject.of(head)) {
                Some(subject) => Buyer::Subject(*subject.as_bytes()),
                None => Buyer::Anybody,
            },
        }
    }

    fn holder(&self, presented: &Presented) -> Option<Buyer> {
        let mut buffer = [0; MAX_MACAROON];
        let credential = credential::read(presented, &mut buffer).ok()?;
        let keys = self.issuer.0.keys.load();
        let token = macaroon::verify(&credential.macaroon, credential.preimage.as_ref(), &keys, true).ok()?;
        let account = token.account()?;
        if self.issuer.0.revocations().contains(token.payment_hash(), token.token_id(), &self.service) {
            return None;
        }
        // A fresh token of the account would lack what its holder may not do
        // without: what was added to it, and what it is bound to.
        let condition = format!("{}_offer", self.service);
        let mut offer = None;
        for (bytes, minted) in token.caveats() {
            let caveat = Caveat::parse(std::str::from_utf8(bytes).ok()?)?;
            if !minted || self.issuer.0.caveats.binds(caveat.condition()) {
                return None;
            }
            if caveat.condition() == condition {
                offer = Some(caveat.value().to_owned());
            }
        }
        Some(Buyer::Account { account, offer: offer?, token_id: token.token_id() })
    }
}
