//! What the page shows.

use std::fmt;

use http::request::Parts;

use crate::clock::unix;
use crate::entropy::random;
use crate::gate::GateInner;
use crate::offer::Offer;
use crate::preimage::PaymentHash;
use crate::price::Price;
use crate::sale::Sold;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// What a page shows of one challenge: for a [renderer](super::Page::rendered_by)
/// of your own. Titles and descriptions are as the seller wrote them, and the
/// address is the client's: **escape** what goes into HTML.
#[non_exhaustive]
pub struct View<'a> {
    /// The name of the service.
    pub service: &'a str,
    /// What opens the request, first of all what the invoice buys.
    pub offers: Vec<OfferView<'a>>,
    /// Other ways to pay.
    pub links: &'a [Link],
    /// What the invoice is for, in msat.
    pub amount_msat: u64,
    /// The BOLT 11 invoice.
    pub invoice: &'a str,
    /// Its payment hash.
    pub payment_hash: PaymentHash,
    /// The token that it pays for, in base64. A secret: with the preimage it
    /// opens what is sold.
    pub token: String,
    /// Unix second until which the invoice can be paid.
    pub pay_by: u64,
    /// How many seconds that is from now.
    pub seconds_left: u64,
    /// Where the form goes: see [`IssuerBuilder::with_page`](crate::IssuerBuilder::with_page).
    pub route: &'a str,
    /// Where the browser goes from there: path and query of the request.
    pub back: String,
    /// Whether the server sees the payment by itself: `GET` of the route, with
    /// the token as `Authorization: L402 <token>`, then tells of it, and the
    /// form opens without a preimage.
    pub sees_payment: bool,
    /// What a `style` or `script` element needs as its `nonce` to be read.
    pub nonce: String,
}

/// One offer.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct OfferView<'a> {
    /// Its id.
    pub id: &'a str,
    /// Its title.
    pub title: Option<&'a str>,
    /// A longer text.
    pub description: Option<&'a str>,
    /// What it costs; `None` where that depends on the request.
    pub price: Option<Price>,
    /// How many requests or units it sells; `None` for a pass.
    pub uses: Option<u64>,
    /// For how long, in seconds.
    pub seconds: u64,
    /// At most so many requests in so many seconds.
    pub rate: Option<(u64, u64)>,
    /// Whether the invoice buys it.
    pub is_invoiced: bool,
    /// Other ways to pay for it, of the issuer's checkout.
    pub links: Vec<Link>,
}

/// Another way to pay: a link.
#[derive(Clone, Debug)]
pub struct Link {
    pub(super) label: String,
    pub(super) url: String,
    pub(super) gives_token: bool,
}

impl Link {
    /// What the link says.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Where it goes.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Whether what is paid for there is opened by a token, which the answer to a
    /// `POST` has and a link followed has not: **who follows the link pays for
    /// nothing**. Post the members of its query as JSON, keep the answer's token,
    /// and lead on to its `checkout_url`.
    pub fn gives_token(&self) -> bool {
        self.gives_token
    }
}

impl<'a> View<'a> {
    pub(super) fn new(
        gate: &'a GateInner,
        route: &'a str,
        links: &'a [Link],
        head: &Parts,
        sold: &'a Sold,
    ) -> Self {
        let issuer = &*gate.issuer.0;
        let mut offers: Vec<_> = gate
            .sellable(head)
            .into_iter()
            .flatten()
            .map(|offer| OfferView::new(gate, offer, sold))
            .collect();
        offers.sort_by_key(|offer| !offer.is_invoiced);
        Self {
            service: &gate.service,
            offers,
            links,
            amount_msat: sold.amount_msat,
            invoice: sold.challenge.invoice(),
            payment_hash: sold.payment_hash,
            token: sold.challenge.token().to_base64(),
            pay_by: sold.pay_by,
            seconds_left: sold.pay_by.saturating_sub(unix(issuer.clock.now())),
            route,
            back: back(head),
            sees_payment: issuer.payments.policy.admit_settled,
            nonce: URL_SAFE_NO_PAD.encode(random::<16>(&*issuer.entropy)),
        }
    }
}

/// The path and query that the browser asked for, as far as the server tells.
fn back(head: &Parts) -> String {
    #[cfg(feature = "axum")]
    let uri = head.extensions.get::<axum::extract::OriginalUri>().map_or(&head.uri, |original| &original.0);
    #[cfg(not(feature = "axum"))]
    let uri = &head.uri;
    uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str).to_owned()
}

#[cfg(feature = "offers")]
fn links(gate: &GateInner, offer: &Offer, sold: &Sold) -> Vec<Link> {
    let (Some(listing), Some(counter)) = (&sold.listing, &gate.issuer.0.checkout) else { return Vec::new() };
    let links = listing.links(counter).into_iter().filter(|link| *link.offer == *offer.id);
    links.map(|link| Link { label: link.label, url: link.url, gives_token: !link.is_for_user }).collect()
}

#[cfg(not(feature = "offers"))]
fn links(_: &GateInner, _: &Offer, _: &Sold) -> Vec<Link> {
    Vec::new()
}

impl<'a> OfferView<'a> {
    fn new(gate: &GateInner, offer: &'a Offer, sold: &Sold) -> Self {
        let is_invoiced = offer.id == sold.offer;
        Self {
            id: &offer.id,
            title: offer.title.as_deref(),
            description: offer.description.as_deref(),
            price: if is_invoiced { Some(Price::Amount(sold.price)) } else { offer.pricing.fixed() },
            uses: offer.access.max_uses(),
            seconds: offer.access.duration().as_secs(),
            rate: offer.access.max_rate().map(|rate| (rate.n.get(), rate.seconds.get())),
            is_invoiced,
            links: links(gate, offer, sold),
        }
    }
}

impl fmt::Debug for View<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("View")
            .field("service", &self.service)
            .field("offers", &self.offers)
            .field("links", &self.links)
            .field("amount_msat", &self.amount_msat)
            .field("payment_hash", &self.payment_hash)
            .field("pay_by", &self.pay_by)
            .finish_non_exhaustive()
    }
}
