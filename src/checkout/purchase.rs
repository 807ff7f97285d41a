//! What is bought by a method other than Lightning: the account that is paid for,
//! until when, and the token that the payment makes valid.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::StatusCode;

use super::context::{Buyer, Context};
use super::order::Order;
use super::subject::subject_account;
use crate::answer::Refused;
use crate::caveat::{Bound, Minted};
use crate::clock::unix;
use crate::entropy::random;
use crate::gate::GateInner;
use crate::ledger::AccountId;
use crate::macaroon::{Identifier, Macaroon, TokenId, mint};
use crate::offer::Offer;
use crate::preimage::PaymentHash;
use crate::price::Amount;
use crate::refusal::Refusal;

/// What is bought, and what of it the buyer gets now.
pub(super) struct Purchase {
    /// Under its MAC.
    pub(super) order: String,
    pub(super) account: AccountId,
    /// The unix second until which it can be paid.
    pub(super) pay_by: u64,
    /// The unix second until which what is paid for is good.
    pub(super) valid_until: u64,
    /// `None` where the application's own authentication admits.
    pub(super) token: Option<Macaroon<'static>>,
}

impl Purchase {
    /// What this offer buys from this 402, by this method. Asked again it is the
    /// same account.
    pub(super) async fn new(
        gate: &GateInner,
        context: &Context,
        offer: &Offer,
        price: Amount,
        method: &str,
    ) -> Result<Self, Refused> {
        let issuer = &*gate.issuer.0;
        let counter = issuer.checkout.as_ref().expect("a purchase is made at a checkout");
        let keys = issuer.keys.load_full();
        let key = keys.signing(true);
        let bound = context.bound().ok_or(Refusal::Misconfigured)?;
        let account: AccountId = match &context.buyer {
            Buyer::Subject(subject) => subject_account(issuer.network, &gate.service, &offer.id, subject),
            Buyer::Account { account, offer: of, .. }
                if **of == *offer.id && can_be_added_to(offer, &bound) =>
            {
                *account
            }
            Buyer::Anybody | Buyer::Account { .. } => {
                key.labelled().account(&[&context.nonce, offer.id.as_bytes()]).into()
            }
        };
        let is_subject = matches!(context.buyer, Buyer::Subject(_));
        if is_subject && !is_for_subjects(offer) {
            return Err(Refusal::NotForSale(StatusCode::BAD_REQUEST).into());
        }

        let now = unix(issuer.clock.now());
        let pay_by = context.expires_at.saturating_add(counter.config.lifetime_seconds());
        // What is in the account already.
        let paid_until = match &issuer.accounts {
            Some(accounts) if context.buyer != Buyer::Anybody => {
                accounts.ask(account, issuer, 0, || Ok(())).await?.unwrap_or_default()
            }
            _ => 0,
        };
        let duration = offer.access.duration().as_secs();
        // A pass goes on where the one before ends. Of counted uses, that it lasts
        // longer tells that more was paid.
        let valid_until = if offer.is_metered() {
            pay_by.saturating_add(duration).max(paid_until.saturating_add(1))
        } else {
            pay_by.max(paid_until).saturating_add(duration)
        };

        let random = random(&*issuer.entropy);
        let minted = Minted::new(&gate.service, offer, price, valid_until, bound);
        let caveats = minted.caveats();
        let count = u8::try_from(caveats.len()).expect("the gate was built for at most 32 caveats");
        let token_id = TokenId::new(key.id(), now, count, random).of_account();
        let payment_hash = PaymentHash::from_bytes(*account.as_bytes());
        // Nobody pays for what is revoked already, nor gets a fresh token of it.
        let services = std::iter::once(&*gate.service).chain(offer.also_opens.iter().map(String::as_str));
        for service in services {
            if let Buyer::Account { account, token_id, .. } = &context.buyer {
                let hash = PaymentHash::from_bytes(*account.as_bytes());
                if issuer.revocations().contains(hash, *token_id, service) {
                    return Err(Refusal::Revoked.into());
                }
            }
            if issuer.revocations().contains(payment_hash, token_id, service) {
                let is_the_accounts = !issuer.revocations().would_revoke(token_id, service);
                return Err(if is_the_accounts { Refusal::Revoked } else { Refusal::Misconfigured }.into());
            }
        }
        let identifier = Identifier { version: 0, payment_hash, token_id };
        let token = mint(&*key.root(&identifier.to_bytes()), &identifier, caveats)
            .expect("the gate was built for tokens within the caps");
        let order = Order {
            account,
            method: method.to_owned(),
            service: gate.service.to_string(),
            offer: offer.id.to_string(),
            // A pass has a unit too, by which the ledger tells that it was credited.
            units: offer.access.max_uses().unwrap_or(1),
            valid_until,
            amount: price,
        };
        Ok(Self {
            order: order.seal(&keys),
            account,
            pay_by,
            valid_until,
            token: (!is_subject).then_some(token),
        })
    }
}

/// Whether more of an offer can be put into an account that has some: units of one
/// price, that are bound to nothing.
fn can_be_added_to(offer: &Offer, bound: &[Bound]) -> bool {
    offer.is_metered() && !offer.pricing.is_computed() && bound.is_empty()
}

/// Whether the account of a user can hold an offer: what it costs is the same for
/// every request.
pub(crate) fn is_for_subjects(offer: &Offer) -> bool {
    !offer.pricing.is_computed()
}

/// A token as a `Bearer` has it.
pub(super) fn bearer(token: &Macaroon<'_>) -> String {
    URL_SAFE_NO_PAD.encode(token.as_bytes())
}
