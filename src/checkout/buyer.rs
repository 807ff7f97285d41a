//! Whose account a payment from a 402 is for.

use http::request::Parts;

use super::context::Buyer;
use crate::caveat::Caveat;
use crate::credential::{self, Presented};
use crate::gate::GateInner;
use crate::macaroon::{self, MAX_MACAROON};

impl GateInner {
    /// The user, or the account of the token that was presented, be it used up.
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
        let condition = format!("{}_offer", self.service);
        let offer = token.caveats().filter(|(_, minted)| *minted).find_map(|(bytes, _)| {
            let caveat = Caveat::parse(std::str::from_utf8(bytes).ok()?)?;
            (caveat.condition() == condition).then(|| caveat.value().to_owned())
        })?;
        Some(Buyer::Account { account, offer })
    }
}
