//! Selling: from a request that could not be admitted to a challenge.
//!
//! pending challenge, limits, ready invoice or backend, mint.

use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;

use crate::answer::Refused;
use crate::backend::{self, BackendError, BackendErrorKind, Capabilities, InvoiceRequest, LookUpBy};
use crate::caveat::{Bound, Minted};
use crate::challenge::Challenge;
use crate::clock::{HOUR, unix};
use crate::entropy::random;
use crate::exchange;
use crate::gate::GateInner;
use crate::invoice::{self, CheckedInvoice, InvoiceError, MAX_HANDLE};
use crate::issuer::{Issuer, IssuerInner};
use crate::limit::{self, ClientId, Ready, Refill};
use crate::macaroon::{Identifier, TokenId, mint};
use crate::offer::Offer;
use crate::preimage::PaymentHash;
use crate::price::{Amount, Unit};
use crate::refusal::Refusal;

/// Shortest time in which an invoice can be paid, in seconds.
const MIN_LIFETIME: u64 = 30;
/// When to ask again after the backend failed.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// A challenge, and what the buyer is told about it.
#[derive(Clone, Debug)]
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
    /// Whether the same client was handed it before.
    pub(crate) is_repeated: bool,
    /// By what the backend finds the invoice, where its hash is not enough.
    #[cfg(feature = "offers")]
    pub(crate) handle: Option<String>,
    /// What else the 402 offers.
    #[cfg(feature = "offers")]
    pub(crate) listing: Option<Arc<crate::checkout::Listing>>,
}

/// Has somebody who has paid nothing ask for a price, in a place among those
/// that do. While it asks, it counts as a challenge of its client; a sale counts
/// by itself, and what is free, or has no price because of an outage, does not
/// count. What is not for sale does, so that nobody asks for it without end.
pub(crate) async fn ask_unpaid<T>(
    issuer: &IssuerInner,
    head: &Parts,
    question: impl Future<Output = Result<T, Refused>>,
) -> Result<T, Refused> {
    let client = issuer.limits.take_question(head, issuer.clock.now())?;
    let answer = match issuer.limits.enter_pricing() {
        Some(_place) => question.await,
        None => Err(Refusal::Busy.into()),
    };
    match &answer {
        Err(Refused { refusal: Refusal::NotForSale(_), .. }) => {
            issuer.limits.take_server(client, issuer.clock.now())?;
        }
        _ => issuer.limits.give_back(client),
    }
    answer
}

/// Sells an offer of the gate for this price.
pub(crate) async fn sell(
    gate: &GateInner,
    head: &Parts,
    offer: &Offer,
    price: Amount,
) -> Result<Sold, Refused> {
    let bound = gate.issuer.0.caveats.bind_to(head)?;
    gate.requires_bound(&bound)?;
    sell_bound(gate, head, offer, price, bound).await
}

/// Sells an offer of the gate for this price, bound to these conditions. The head
/// says whom the sale is counted for.
pub(crate) async fn sell_bound(
    gate: &GateInner,
    head: &Parts,
    offer: &Offer,
    price: Amount,
    bound: Vec<Bound>,
) -> Result<Sold, Refused> {
    let issuer = &*gate.issuer.0;
    // Whoever has asked too often is turned away before anything is made.
    let client = issuer.limits.take_client(head, issuer.clock.now())?;
    let price_msat = match price.unit() {
        Unit::Msat => price.value(),
        Unit::Minor(_) => {
            let msat = match issuer.limits.enter_pricing() {
                Some(_place) => exchange::msat(issuer.exchange.as_ref(), price, &*issuer.clock).await,
                None => Err(Refusal::Busy.into()),
            };
            msat.inspect_err(|_| issuer.limits.give_back(client))?
        }
    };

    let now = issuer.clock.now();
    let keys = issuer.keys.load_full();
    let key = keys.signing(offer.is_metered());
    let duration = offer.access.duration().as_secs();
    let lifetime = issuer.challenge_lifetime.as_secs().min(duration.max(MIN_LIFETIME));

    let mut minted = Minted::new(&gate.service, offer, price, 0, bound);
    // In place of the one that comes with the invoice, to be counted.
    minted.handle = needs_handle(&issuer.capabilities).then(String::new);
    let caveats = minted.caveats();
    let count = u8::try_from(caveats.len()).expect("the gate was built for at most 32 caveats");
    let ask = InvoiceRequest {
        amount_msat: price_msat.next_multiple_of(issuer.capabilities.step_msat()),
        description: offer.title.clone().unwrap_or_else(|| gate.service.to_string()),
        expiry: Duration::from_secs(lifetime),
        service: gate.service.to_string(),
        offer: offer.id.to_string(),
        token_id: TokenId::new(key.id(), unix(now), count, random(&*issuer.entropy)),
    };
    // Nobody pays for a token that is revoked already.
    let services = || std::iter::once(&*gate.service).chain(offer.also_opens.iter().map(String::as_str));
    if services().any(|service| issuer.revocations().would_revoke(ask.token_id, service)) {
        return Err(Refusal::Misconfigured.into());
    }
    let is_revoked = |hash: PaymentHash, token_id: TokenId| {
        services().any(|service| issuer.revocations().contains(hash, token_id, service))
    };

    let pending =
        issuer.limits.reuse.as_ref().and_then(|reuse| Some((reuse, reuse.key(head, &ask, &caveats)?)));
    if let Some((reuse, key)) = pending {
        let sold = reuse.get(key, unix(now));
        if let Some(sold) = sold.filter(|sold| !is_revoked(sold.payment_hash, sold.token_id())) {
            issuer.limits.give_back(client);
            return Ok(Sold { is_repeated: true, ..sold });
        }
    }
    let pool = gate.pool.as_ref().filter(|pool| pool.offer == offer.id);
    let ready = pool.and_then(|pool| {
        let is_revoked = |ready: &Ready| is_revoked(ready.invoice.payment_hash, ready.token_id);
        pool.take(ask.amount_msat, ask.token_id, unix(now), is_revoked)
    });
    let refills = pool.into_iter().flat_map(|pool| pool.refill(unix(now)));
    refills.for_each(|refill| start(&gate.issuer, refill, &ask));
    let ready = match ready {
        Some(ready) => ready,
        None => make(issuer, ask, client).await?,
    };

    // As long as the invoice can be paid, by the node's clock: who pays in time
    // gets all that was sold.
    let Ready { token_id, amount_msat, invoice } = ready;
    let pay_by = invoice.expires_at;
    let valid_until = pay_by.saturating_add(duration);
    minted.valid_until = valid_until;
    minted.handle = invoice.handle;
    let identifier = Identifier { version: 0, payment_hash: invoice.payment_hash, token_id };
    let root = key.root(&identifier.to_bytes());
    let token =
        mint(&*root, &identifier, minted.caveats()).expect("the gate was built for tokens within the caps");
    let sold = Sold {
        challenge: Challenge::new(token, invoice.bolt11),
        offer: offer.id.clone(),
        payment_hash: invoice.payment_hash,
        price,
        price_msat,
        amount_msat,
        pay_by,
        valid_until,
        is_repeated: false,
        #[cfg(feature = "offers")]
        handle: minted.handle,
        #[cfg(feature = "offers")]
        listing: None,
    };
    if let Some((reuse, key)) = pending {
        reuse.remember(key, &sold, unix(issuer.clock.now()));
    }
    Ok(sold)
}

impl Sold {
    fn token_id(&self) -> TokenId {
        self.challenge.token().identifier().token_id
    }
}

/// Has an invoice made for a client that waits for it.
async fn make(issuer: &IssuerInner, ask: InvoiceRequest, client: Option<ClientId>) -> Result<Ready, Refused> {
    issuer.limits.take_server(client, issuer.clock.now())?;
    let _place = issuer.limits.enter().ok_or(Refusal::Busy)?;
    let invoice = ask_backend(issuer, &ask).await?;
    Ok(Ready { token_id: ask.token_id, amount_msat: ask.amount_msat, invoice })
}

/// Has an invoice made for whoever comes next. It is given up at the first
/// limit or failure: a later use starts another.
fn start(issuer: &Issuer, refill: Refill, ask: &InvoiceRequest) {
    let like = ask.token_id;
    let random = random(&*issuer.0.entropy);
    let token_id = TokenId::new(like.key_id(), like.issued_at(), like.minted(), random);
    let (issuer, ask) = (issuer.clone(), InvoiceRequest { token_id, ..ask.clone() });
    tokio::spawn(async move {
        match make(&issuer.0, ask, None).await {
            Ok(ready) => refill.put(ready),
            Err(Refused { refusal: Refusal::BackendUnavailable { retry_after }, .. }) => {
                refill.fail(unix(issuer.0.clock.now()).saturating_add(retry_after.as_secs().max(1)));
            }
            // A limit is reached. It is not the backend that failed.
            Err(_) => {}
        }
    });
}

async fn ask_backend(issuer: &IssuerInner, ask: &InvoiceRequest) -> Result<CheckedInvoice, BackendError> {
    let invoice = backend::call(issuer.limits.time_limit, || issuer.backend.create_invoice(ask)).await?;
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
        // Whatever it says: a pool of invoices is not left empty for longer.
        let retry_after = retry_after.unwrap_or(RETRY_AFTER).min(HOUR);
        Self::because(Refusal::BackendUnavailable { retry_after }, error)
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
