//! The offers body: what a 402 says of what can be bought, and how.

use http::request::Parts;
use serde::Serialize;
use serde_json::value::RawValue;

use super::config::{LIGHTNING, OffersVersion};
use super::context::{self, Buyer, Context};
use super::counter::Counter;
use super::money::{major, minor, rfc3339};
use super::purchase::{Purchase, bearer};
use crate::answer;
use crate::clock::{duration, unix};
use crate::entropy::random;
use crate::gate::GateInner;
use crate::offer::Offer;
use crate::price::{Amount, Price};
use crate::sale::{self, Sold};

/// Most offers of a body of version 1.0, which has an invoice for each.
const MAX_INLINE: usize = 3;
/// Longest name of a resource, in bytes.
const MAX_RESOURCE: usize = 256;

/// What a 402 offers beside its challenge: members of the problem body.
#[derive(Debug, Serialize)]
pub(crate) struct Listing {
    version: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) payment_request_url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) payment_context_token: Option<String>,
    pub(super) offers: Vec<Listed>,
    /// When nothing can be bought from this body any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    expiry: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    terms_url: Option<String>,
    metadata: Metadata,
    /// Whether what is paid is in the account of the application's own user, and
    /// no token has to be kept.
    #[cfg(feature = "page")]
    #[serde(skip)]
    pub(super) is_for_user: bool,
}

#[derive(Debug, Serialize)]
struct Metadata {
    resource_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_note: Option<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct Listed {
    pub(super) id: String,
    title: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    duration: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    balance: Option<u64>,
    amount: ListedAmount,
    currency: String,
    pub(super) payment_methods: Vec<ListedMethod>,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum ListedAmount {
    Minor(u64),
    Major(Box<RawValue>),
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum ListedMethod {
    Name(String),
    Inline { payment_type: String, payment_details: Inline },
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Inline {
    Invoice {
        invoice: String,
        token: String,
    },
    Link {
        payment_link: String,
        provider: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        token: Option<String>,
    },
}

impl Listing {
    /// What this request may buy, of which the challenge sells one offer.
    pub(crate) async fn new(gate: &GateInner, head: &Parts, buyer: Buyer, sold: &Sold) -> Option<Self> {
        let issuer = &*gate.issuer.0;
        let counter = issuer.checkout.as_ref()?;
        let config = &counter.config;
        let now = unix(issuer.clock.now());
        let resource = resource(head);
        let sells_sold = |offer: &Offer| offer.id == sold.offer;
        let priced = gate.sellable(head).ok()?.any(|offer| sells_sold(offer) && offer.pricing.is_computed());
        let bound = issuer.caveats.bind_to(head).ok()?;
        let offers: Vec<_> = gate
            .sellable(head)
            .ok()?
            .filter_map(|offer| {
                let price =
                    if sells_sold(offer) { Some(Price::Amount(sold.price)) } else { offer.pricing.fixed() };
                // What costs nothing, or nobody knows what, is not for sale here.
                match price? {
                    Price::Amount(price) => Some((offer.clone(), price)),
                    Price::Free => None,
                }
            })
            .collect();
        let context = Context {
            nonce: random(&*issuer.entropy),
            service: gate.service.to_string(),
            expires_at: now.saturating_add(context::LIFETIME),
            resource: resource.clone(),
            buyer,
            offers: offers.iter().map(|(offer, _)| offer.id.to_string()).collect(),
            priced: priced.then(|| (sold.offer.to_string(), sold.price)),
            bound: bound.iter().map(crate::caveat::Bound::to_caveat).collect(),
        };
        let token = context.seal(&issuer.keys.load());

        let mut listed = Vec::new();
        match config.version {
            OffersVersion::V0_2_2 => {
                for (offer, price) in &offers {
                    let names = methods(counter, *price).map(ListedMethod::Name).collect();
                    listed.push(Listed::new(gate, offer, ListedAmount::minor(*price), *price, names));
                }
            }
            OffersVersion::V1_0 => {
                for (offer, price) in offers.iter().take(MAX_INLINE) {
                    let inline = inline(gate, head, &context, &token, (offer, *price), sold).await;
                    listed.push(Listed::new(gate, offer, ListedAmount::major(*price), *price, inline));
                }
            }
        }
        let is_inline = config.version == OffersVersion::V1_0;
        Some(Self {
            version: if is_inline { "1.0" } else { "0.2.2" },
            payment_request_url: (!is_inline).then(|| format!("{}/payment-request", config.base_url)),
            payment_context_token: (!is_inline).then_some(token),
            offers: listed,
            expiry: is_inline.then(|| rfc3339(sold.pay_by.min(context.expires_at))),
            terms_url: config.terms_url.clone(),
            metadata: Metadata { resource_id: resource, client_note: config.client_note.clone() },
            #[cfg(feature = "page")]
            is_for_user: matches!(context.buyer, Buyer::Subject(_)),
        })
    }
}

/// Method and path of a request, for whoever reads the body.
fn resource(head: &Parts) -> String {
    let resource = format!("{} {}", head.method, head.uri.path());
    let end = (0..=MAX_RESOURCE.min(resource.len())).rev().find(|end| resource.is_char_boundary(*end));
    resource[..end.unwrap_or_default()].to_owned()
}

/// The names of the methods that take this price.
fn methods(counter: &Counter, price: Amount) -> impl Iterator<Item = String> {
    let takes = counter.config.methods.iter().filter(move |method| method.takes(price.unit()));
    std::iter::once(LIGHTNING.to_owned()).chain(takes.map(|method| method.name().to_owned()))
}

/// The ways to pay for an offer, with their details.
async fn inline(
    gate: &GateInner,
    head: &Parts,
    context: &Context,
    context_token: &str,
    (offer, price): (&Offer, Amount),
    sold: &Sold,
) -> Vec<ListedMethod> {
    let counter = gate.issuer.0.checkout.as_ref().expect("a listing is of a checkout");
    let mut inline = Vec::new();
    let challenge = if offer.id == sold.offer {
        Some(sold.challenge.clone())
    } else {
        // Where there is no invoice for it, the other ways to pay remain.
        let sold = match context.bound() {
            Some(bound) => sale::sell_bound(gate, head, offer, price, bound).await.ok(),
            None => None,
        };
        sold.map(|sold| {
            answer::tell_challenge(gate, &sold);
            sold.challenge
        })
    };
    if let Some(challenge) = challenge {
        let (invoice, token) = (challenge.invoice().to_owned(), challenge.token().to_base64());
        let payment_details = Inline::Invoice { invoice, token };
        inline.push(ListedMethod::Inline { payment_type: "Lightning Network".to_owned(), payment_details });
    }
    let takes = counter.config.methods.iter().filter(|method| method.takes(price.unit()));
    for method in takes {
        let Ok(purchase) = Purchase::new(gate, context, offer, price, method.name()).await else { continue };
        // Names, and base64url: nothing that a query would have to escape.
        let payment_link = format!(
            "{}/payment-request?offer_id={}&payment_method={}&payment_context_token={context_token}",
            counter.config.base_url,
            offer.id,
            method.name()
        );
        let token = purchase.token.as_ref().map(bearer);
        let payment_details = Inline::Link { payment_link, provider: method.name().to_owned(), token };
        inline.push(ListedMethod::Inline { payment_type: method.payment_type().to_owned(), payment_details });
    }
    inline
}

impl ListedAmount {
    fn minor(price: Amount) -> Self {
        Self::Minor(minor(price).0)
    }

    fn major(price: Amount) -> Self {
        let (minor, currency) = minor(price);
        Self::Major(major((minor, &currency)))
    }
}

impl Listed {
    fn new(
        gate: &GateInner,
        offer: &Offer,
        amount: ListedAmount,
        price: Amount,
        payment_methods: Vec<ListedMethod>,
    ) -> Self {
        let (r#type, lasts, balance) = match offer.access.max_uses() {
            Some(1) => ("one-time", None, None),
            Some(uses) => ("top-up", None, Some(uses)),
            None => ("subscription", Some(duration(offer.access.duration().as_secs())), None),
        };
        Self {
            id: offer.id.to_string(),
            title: title(gate, offer),
            description: offer.description.clone(),
            r#type,
            duration: lasts,
            balance,
            amount,
            currency: minor(price).1,
            payment_methods,
        }
    }
}

/// What a buyer is shown.
pub(super) fn title(gate: &GateInner, offer: &Offer) -> String {
    offer.title.clone().unwrap_or_else(|| gate.service.to_string())
}
