//! Selling: from a request that could not be admitted to a challenge.
//!
//! limit, backend, mint.

use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;

use crate::answer::Refused;
use crate::backend::{self, BackendError, BackendErrorKind, Capabilities, InvoiceRequest, LookUpBy};
use crate::caveat::Minted;
use crate::challenge::Challenge;
use crate::clock::unix;
use crate::entropy::random;
use crate::exchange;
use crate::gate::GateInner;
use crate::invoice::{self, CheckedInvoice, InvoiceError, MAX_HANDLE};
use crate::issuer::IssuerInner;
use crate::limit;
use crate::macaroon::{Identifier, TokenId, mint};
use crate::offer::Offer;
use crate::preimage::PaymentHash;
use crate::price::Amount;
use crate::refusal::Refusal;

/// Shortest time in which an invoice can be paid, in seconds.
const MIN_LIFETIME: u64 = 30;
/// When to ask again after the backend failed.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// A challenge, and what the buyer is told about it.
#[derive(Debug)]
pub(crate) struct Sold {
    pub(crate) challenge: Challenge,
    /// The id of the offer that the invoice buys.
    pub(crate) offer: Arc<str>,
    pub(crate) payment_hash: PaymentHash,
    pub(crate) price: Amount,
    /// The price in msat.
    pub(crate) price_msat: u64,
    /// What the invoice is for, in msat: the price, rounded up to what the backend bills.
    pub(crate) amount_msat: u64,
    /// Unix second until which the invoice can be paid.
    pub(crate) pay_by: u64,
    /// Unix second until which the token is good.
    pub(crate) valid_until: u64,
}

/// Sells an offer of the gate for this price.
pub(crate) async fn sell(
    gate: &GateInner,
    head: &Parts,
    offer: &Offer,
    price: Amount,
) -> Result<Sold, Refused> {
    let issuer = &*gate.issuer.0;
    let bound = issuer.caveats.bind_to(head)?;
    gate.requires_bound(&bound)?;

    let place = issuer.limits.enter().ok_or(Refusal::Busy)?;
    let price_msat = exchange::msat(issuer.exchange.as_ref(), price, &*issuer.clock).await?;
    let now = unix(issuer.clock.now());
    let keys = issuer.keys.load_full();
    let key = keys.signing(offer.is_metered());
    let duration = offer.access.duration().as_secs();
    let lifetime = issuer.challenge_lifetime.as_secs().min(duration.max(MIN_LIFETIME));

    let mut minted = Minted::new(&gate.service, offer, price, 0, bound);
    // In place of the one that comes with the invoice, to be counted.
    minted.handle = needs_handle(&issuer.capabilities).then(String::new);
    let count = u8::try_from(minted.caveats().len()).expect("the gate was built for at most 32 caveats");
    let token_id = TokenId::new(key.id(), now, count, random(&*issuer.entropy));
    // Nobody pays for a token that is revoked already.
    for service in std::iter::once(&*gate.service).chain(offer.also_opens.iter().map(String::as_str)) {
        if issuer.revocations().would_revoke(token_id, service) {
            return Err(Refusal::Misconfigured.into());
        }
    }
    let ask = InvoiceRequest {
        amount_msat: price_msat.next_multiple_of(issuer.capabilities.step_msat()),
        description: offer.title.clone().unwrap_or_else(|| gate.service.to_string()),
        expiry: Duration::from_secs(lifetime),
        service: gate.service.to_string(),
        offer: offer.id.to_string(),
        token_id,
    };
    let invoice = ask_backend(issuer, &ask).await?;
    drop(place);

    // As long as the invoice can be paid, by the node's clock: who pays in time
    // gets all that was sold.
    let pay_by = invoice.expires_at;
    let valid_until = pay_by.saturating_add(duration);
    minted.valid_until = valid_until;
    minted.handle = invoice.handle;
    let identifier = Identifier { version: 0, payment_hash: invoice.payment_hash, token_id };
    let root = key.root(&identifier.to_bytes());
    let token =
        mint(&*root, &identifier, minted.caveats()).expect("the gate was built for tokens within the caps");
    Ok(Sold {
        challenge: Challenge::new(token, invoice.bolt11),
        offer: offer.id.clone(),
        payment_hash: invoice.payment_hash,
        price,
        price_msat,
        amount_msat: ask.amount_msat,
        pay_by,
        valid_until,
    })
}

async fn ask_backend(issuer: &IssuerInner, ask: &InvoiceRequest) -> Result<CheckedInvoice, BackendError> {
    let invoice = backend::call(issuer.limits.time_limit, issuer.backend.create_invoice(ask)).await?;
    let checked = invoice::check(&invoice, ask, &issuer.capabilities, unix(issuer.clock.now()))?;
    if !limit::is_new(checked.payment_hash) {
        return Err(InvoiceError::Reused.into());
    }
    Ok(checked)
}

impl From<BackendError> for Refused {
    fn from(error: BackendError) -> Self {
        let retry_after = match error.kind() {
            BackendErrorKind::RateLimited { retry_after } => retry_after,
            _ => None,
        };
        Self::because(Refusal::BackendUnavailable { retry_after: retry_after.unwrap_or(RETRY_AFTER) }, error)
    }
}

fn needs_handle(capabilities: &Capabilities) -> bool {
    capabilities.look_up() == Some(LookUpBy::Handle)
}

/// The longest token that an offer can make, to see whether it is within the
/// caps and leaves its holder room to attenuate.
pub(crate) fn longest_token(issuer: &IssuerInner, service: &str, offer: &Offer) -> Option<usize> {
    let bound = issuer.caveats.longest_bound();
    let mut minted = Minted::new(service, offer, Amount::MOST, u64::MAX, bound);
    minted.handle = needs_handle(&issuer.capabilities).then(|| "x".repeat(MAX_HANDLE));
    let caveats = minted.caveats();
    let identifier = Identifier { version: 0, payment_hash: [0; 32].into(), token_id: [0; 32].into() };
    let token = mint(&[0; 32], &identifier, &caveats).ok()?;
    (caveats.len() <= 24).then(|| token.as_bytes().len())
}
