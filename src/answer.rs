//! The response to a request that was not admitted, for HTTP and for gRPC.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, CACHE_CONTROL, CONTENT_TYPE, ORIGIN,
    RETRY_AFTER, WWW_AUTHENTICATE,
};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use serde::Serialize;

use crate::event::Event;
use crate::gate::GateInner;
use crate::offer::Offer;
use crate::price::{Amount, Price, Unit};
use crate::refusal::Refusal;
use crate::sale::Sold;

/// The error behind a refusal of class 5xx. It stands in the extensions of the
/// response, for a layer above the gate to log; the client never sees it.
#[derive(Clone, Debug)]
pub struct Cause(Arc<dyn StdError + Send + Sync>);

impl Cause {
    /// The error itself, to be downcast: a [`BackendError`](crate::BackendError),
    /// a [`LedgerError`](crate::ledger::LedgerError), a [`PriceError`](crate::PriceError).
    pub fn error(&self) -> &(dyn StdError + Send + Sync + 'static) {
        &*self.0
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl StdError for Cause {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source()
    }
}

/// A refusal with what caused it.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) refusal: Refusal,
    pub(crate) cause: Option<Cause>,
}

impl Refused {
    pub(crate) fn because(refusal: Refusal, cause: impl StdError + Send + Sync + 'static) -> Self {
        Self { refusal, cause: Some(Cause(Arc::new(cause))) }
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, cause: None }
    }
}

/// A CORS preflight: a browser's question that carries no credential.
pub(crate) fn is_preflight(head: &Parts) -> bool {
    head.method == Method::OPTIONS
        && head.headers.contains_key(ORIGIN)
        && head.headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

/// The answer to a preflight where no CORS layer gives a better one.
pub(crate) fn preflight() -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

/// Whether a body is native gRPC's, which ends with trailers.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    grpc_protocol(headers) == Some("application/grpc")
}

/// Whether the answer has no body to list offers in.
#[cfg(feature = "offers")]
pub(crate) fn is_grpc_call(head: &Parts) -> bool {
    grpc_content_type(head).is_some()
}

/// The content type of the answer to a gRPC call, which is of the same
/// protocol as the call; `None` for any other request.
fn grpc_content_type(head: &Parts) -> Option<&'static str> {
    if head.method == Method::POST { grpc_protocol(&head.headers) } else { None }
}

fn grpc_protocol(headers: &HeaderMap) -> Option<&'static str> {
    let asked = headers.get(CONTENT_TYPE)?.as_bytes();
    let begins = |with: &[u8]| asked.get(..with.len()).is_some_and(|start| start.eq_ignore_ascii_case(with));
    if !begins(b"application/grpc") {
        None
    } else if begins(b"application/grpc-web-text") {
        Some("application/grpc-web-text+proto")
    } else if begins(b"application/grpc-web") {
        Some("application/grpc-web+proto")
    } else {
        Some("application/grpc")
    }
}

/// Renders a refusal, with the challenge where there is one.
pub(crate) fn respond(
    gate: &GateInner,
    head: &Parts,
    refused: Refused,
    sold: Option<&Sold>,
) -> Response<Bytes> {
    tell(gate, &refused, sold);
    let Refused { refusal, cause } = refused;
    // A 402 asks for a payment; where nothing is sold, the credential is refused.
    let status = match refusal.status() {
        StatusCode::PAYMENT_REQUIRED if sold.is_none() => StatusCode::UNAUTHORIZED,
        status => status,
    };
    let grpc = grpc_content_type(head);
    let mut response = match grpc {
        Some(content_type) => trailers_only(content_type, &refusal),
        None => body(gate, head, status, &refusal, sold),
    };

    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(sold) = sold {
        headers.insert(WWW_AUTHENTICATE, sold.challenge.to_header_value());
    } else if status == StatusCode::UNAUTHORIZED {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("L402"));
    }
    if let Some(wait) = refusal.retry_after() {
        // Rounded up, so that whoever waits that long does not come early.
        headers.insert(
            RETRY_AFTER,
            wait.as_millis().div_ceil(1000).min(3600).to_string().parse().expect("digits"),
        );
    }
    if head.headers.contains_key(ORIGIN) {
        let exposed = match grpc {
            Some(_) => "WWW-Authenticate, Retry-After, grpc-status, grpc-message",
            None => "WWW-Authenticate, Retry-After",
        };
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(exposed));
    }
    response.extensions_mut().insert(refusal);
    if let Some(cause) = cause {
        response.extensions_mut().insert(cause);
    }
    response
}

fn tell(gate: &GateInner, refused: &Refused, sold: Option<&Sold>) {
    let (events, service) = (&gate.issuer.0.events, &*gate.service);
    events.refused(service, &refused.refusal, refused.cause.as_ref());
    if let Some(sold) = sold {
        tell_challenge(gate, sold);
    }
}

/// Tells of an invoice that a client is handed.
pub(crate) fn tell_challenge(gate: &GateInner, sold: &Sold) {
    let service = &*gate.service;
    let Sold { offer, amount_msat, payment_hash, is_repeated, .. } = sold;
    let (amount_msat, payment_hash, is_repeated) = (*amount_msat, *payment_hash, *is_repeated);
    gate.issuer.0.events.tell(|| Event::Challenge { service, offer, amount_msat, payment_hash, is_repeated });
}

/// A gRPC response without a body: the status stands in the headers.
fn trailers_only(content_type: &'static str, refusal: &Refusal) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.headers_mut() = trailers(refusal);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// What ends a gRPC response.
pub(crate) fn trailers(refusal: &Refusal) -> HeaderMap {
    let message = if refusal.is_payable() { "payment required" } else { refusal.detail() };
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from(u16::from(refusal.grpc_code())));
    trailers.insert("grpc-message", HeaderValue::from_static(message));
    trailers
}

/// The body for a program, or for the person behind a browser.
fn body(
    gate: &GateInner,
    head: &Parts,
    status: StatusCode,
    refusal: &Refusal,
    sold: Option<&Sold>,
) -> Response<Bytes> {
    #[cfg(feature = "page")]
    if let Some(page) = sold.and_then(|sold| crate::page::answer(gate, head, sold)) {
        return page;
    }
    problem(gate, head, status, refusal, sold)
}

/// An `application/problem+json` body (RFC 9457). Everything of ours stands in
/// the member `l402`, so that it collides with nobody's.
fn problem(
    gate: &GateInner,
    head: &Parts,
    status: StatusCode,
    refusal: &Refusal,
    sold: Option<&Sold>,
) -> Response<Bytes> {
    let body = Problem {
        r#type: "about:blank",
        title: status.canonical_reason().unwrap_or("Refused"),
        status: status.as_u16(),
        detail: refusal.detail(),
        code: refusal.code(),
        l402: sold.map(|sold| Terms::new(gate, head, sold)),
        #[cfg(feature = "offers")]
        listing: sold.and_then(|sold| sold.listing.as_deref()),
    };
    let json = serde_json::to_vec(&body).expect("strings and numbers serialize");
    let mut response = Response::new(json.into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    response
}

#[derive(Serialize)]
struct Problem<'a> {
    r#type: &'static str,
    title: &'a str,
    status: u16,
    detail: &'a str,
    code: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    l402: Option<Terms<'a>>,
    /// What a checkout sells: its members collide with none of these.
    #[cfg(feature = "offers")]
    #[serde(flatten)]
    listing: Option<&'a crate::checkout::Listing>,
}

/// The challenge once more, for programs that read bodies.
#[derive(Serialize)]
struct Terms<'a> {
    service: &'a str,
    /// The offer that the invoice buys.
    offer: &'a str,
    price_msat: u64,
    invoice: &'a str,
    payment_hash: String,
    token: String,
    /// Unix seconds.
    pay_by: u64,
    valid_until: u64,
    retry: &'static str,
    /// All offers of the gate that open this request.
    offers: Vec<Listed<'a>>,
}

#[derive(Serialize)]
struct Listed<'a> {
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    /// Before rounding to what the backend bills; left out where another
    /// offer's depends on the request or on a rate.
    #[serde(skip_serializing_if = "Option::is_none")]
    price_msat: Option<u64>,
    /// The price in the seller's currency, where it is in one.
    #[serde(flatten)]
    price: Option<MinorPrice>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uses: Option<u64>,
    seconds: u64,
    tier: u8,
    capabilities: &'a [String],
    also_opens: &'a [String],
}

#[derive(Serialize)]
struct MinorPrice {
    /// In the smallest unit of the currency, such as cents.
    price_minor: u64,
    currency: String,
}

impl MinorPrice {
    fn of(price: Amount) -> Option<Self> {
        let Unit::Minor(currency) = price.unit() else { return None };
        Some(Self { price_minor: price.value(), currency: currency.to_string() })
    }
}

impl<'a> Terms<'a> {
    fn new(gate: &'a GateInner, head: &Parts, sold: &'a Sold) -> Self {
        Self {
            service: &gate.service,
            offer: &sold.offer,
            price_msat: sold.amount_msat,
            invoice: sold.challenge.invoice(),
            payment_hash: sold.payment_hash.to_string(),
            token: sold.challenge.token().to_base64(),
            pay_by: sold.pay_by,
            valid_until: sold.valid_until,
            retry: "pay the invoice, then send `Authorization: L402 <token>:<preimage in hex>`",
            offers: gate.sellable(head).into_iter().flatten().map(|offer| Listed::new(offer, sold)).collect(),
        }
    }
}

impl<'a> Listed<'a> {
    fn new(offer: &'a Offer, sold: &Sold) -> Self {
        let is_sold = offer.id == sold.offer;
        let price = if is_sold { Some(Price::Amount(sold.price)) } else { offer.pricing.fixed() };
        let (price_msat, price) = match price {
            Some(Price::Free) => (Some(0), None),
            Some(Price::Amount(price)) => {
                let msat = (price.unit() == Unit::Msat).then(|| price.value());
                (if is_sold { Some(sold.price_msat) } else { msat }, MinorPrice::of(price))
            }
            None => (None, None),
        };
        Self {
            id: &offer.id,
            title: offer.title.as_deref(),
            description: offer.description.as_deref(),
            price_msat,
            price,
            uses: offer.access.max_uses(),
            seconds: offer.access.duration().as_secs(),
            tier: offer.tier,
            capabilities: &offer.capabilities,
            also_opens: &offer.also_opens,
        }
    }
}
