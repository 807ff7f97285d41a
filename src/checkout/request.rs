//! Payment requests: a client has chosen an offer and a method, and asks where to
//! pay.

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, LOCATION, RETRY_AFTER};
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::config::LIGHTNING;
use super::context::Context;
use super::counter::Checkout;
use super::listing::title;
use super::money::rfc3339;
use super::purchase::{Purchase, bearer};
use super::status::StatusOf;
use super::{CheckoutRequest, CheckoutSession, PaymentDetails, PaymentMethod};
use crate::answer::{self, Refused};
use crate::backend::{self, BackendError, BackendErrorKind};
use crate::clock::unix;
use crate::gate::Gate;
use crate::offer::Offer;
use crate::price::{Amount, Price};
use crate::refusal::Refusal;
use crate::sale;

/// Longest body or query of a payment request, in bytes.
const MAX_BODY: usize = 16 * 1024;
/// Longest URL of a checkout, and longest address, asset and chain, in bytes.
const MAX_URL: usize = 4096;
const MAX_NAME: usize = 256;

/// What a client asks for. Some write `id`, some `offer_id`.
#[derive(Default, Deserialize)]
struct Asked {
    offer_id: Option<String>,
    id: Option<String>,
    payment_method: Option<String>,
    payment_context_token: Option<String>,
    asset: Option<String>,
    chain: Option<String>,
}

/// Where to pay.
#[derive(Serialize)]
struct Answer {
    version: &'static str,
    payment_request: Place,
    expires_at: String,
    /// What the payment makes valid, as `L402 <token>`.
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    /// The same, as `Bearer <bearer>`. Left out where a preimage has to go with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    bearer: Option<String>,
    /// Says whether it was paid.
    #[serde(skip_serializing_if = "Option::is_none")]
    status_url: Option<String>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Place {
    Lightning { lightning_invoice: String },
    Url { checkout_url: String },
    Address { address: String, asset: String, chain: String },
}

/// Why there is no answer.
enum No {
    /// The client's fault, in words.
    Because(&'static str),
    Refused(Refused),
}

impl From<Refused> for No {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

impl From<Refusal> for No {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal.into())
    }
}

impl Checkout {
    /// Answers a payment request: the body `{offer_id, payment_method,
    /// payment_context_token}`, with `asset` and `chain` where the method wants
    /// them. The route is `<base_url>/payment-request`, `POST`; by `GET`, with the
    /// same members in the query, a browser is sent on to where it can pay.
    ///
    /// The answer is `{version, payment_request, expires_at}` with, beside them,
    /// the `token` that the payment makes valid (`Authorization: L402 <token>`, for
    /// Lightning `<token>:<preimage>`), the same as a `bearer`, and a `status_url`.
    /// Errors are `{"error"}`: 400, or 429 and 503 with a `Retry-After`. The limits
    /// are those of challenges. A body of more than 16 KiB is refused: read no
    /// more of it.
    ///
    /// # Cancel safety
    /// Dropped, nothing was sold; an invoice or checkout may be left to expire.
    ///
    /// # Panics
    /// Outside a tokio runtime with time enabled.
    pub async fn handle_payment_request(&self, request: Request<Bytes>) -> Response<Bytes> {
        let (head, body) = request.into_parts();
        let asked = match read(&head, &body) {
            Ok(asked) => asked,
            Err((status, why)) => return error(status, why),
        };
        match self.answer(&head, asked).await {
            Ok(answer) => answered(&head, &answer),
            Err(No::Because(why)) => error(StatusCode::BAD_REQUEST, why),
            Err(No::Refused(refused)) => {
                let mut response = refused_as(&refused.refusal);
                if let Some(cause) = refused.cause {
                    response.extensions_mut().insert(cause);
                }
                response
            }
        }
    }

    async fn answer(&self, head: &Parts, asked: Asked) -> Result<Answer, No> {
        let issuer = &*self.0.0;
        let now = unix(issuer.clock.now());
        let context = asked.payment_context_token.ok_or(No::Because("payment_context_token is missing"))?;
        let context = Context::open(&context, &issuer.keys.load(), now).map_err(No::Because)?;
        let offer_id = asked.offer_id.or(asked.id).ok_or(No::Because("offer_id is missing"))?;
        let method = asked.payment_method.ok_or(No::Because("payment_method is missing"))?;
        let listed = context.offers.contains(&offer_id);
        let found = listed.then(|| self.counter().find(&context.service, &offer_id)).flatten();
        let (gate, offer) = found.ok_or(No::Because("offer_id names no offer of this response"))?;
        let price = match (&context.priced, offer.pricing.fixed()) {
            (Some((priced, price)), _) if **priced == *offer.id => *price,
            (_, Some(Price::Amount(price))) => price,
            _ => return Err(No::Because("offer_id names no offer of this response")),
        };
        let by = self.counter().method(&method).filter(|method| method.takes(price.unit()));
        if method != LIGHTNING && by.is_none() {
            return Err(No::Because("payment_method is none of this offer"));
        }
        // What is chosen is remembered, so that nobody chooses without end.
        let client = issuer.limits.take_question(head, issuer.clock.now())?;
        let chosen = self.counter().choices.choose(&context, &offer.id, now);
        if !chosen.map_err(|_full| Refusal::Busy)? {
            return Err(No::Because(
                "payment_context_token was used for another offer; send the request again",
            ));
        }
        let Some(method) = by else {
            // A sale counts by itself.
            issuer.limits.give_back(client);
            return self.by_lightning(head, &gate, &offer, price, &context).await;
        };
        let names = [&asked.asset, &asked.chain];
        if !names.into_iter().flatten().all(|name| is_name(name)) {
            return Err(No::Because("asset and chain are 1 to 64 letters, digits and `._:-`"));
        }
        issuer.limits.take_server(client, issuer.clock.now())?;
        let _place = issuer.limits.enter().ok_or(Refusal::Busy)?;
        let purchase = Purchase::new(&gate.0, &context, &offer, price, method.name()).await?;
        let key =
            [&purchase.order, asked.asset.as_deref().unwrap_or(""), asked.chain.as_deref().unwrap_or("")];
        let ask = CheckoutRequest {
            idempotency_key: hex::encode(Sha256::digest(key.join("\n"))),
            order: purchase.order,
            amount: price,
            title: title(&gate.0, &offer),
            description: offer.description.clone(),
            service: context.service.clone(),
            offer: offer_id,
            expires_at: purchase.pay_by,
            return_url: self.counter().config.return_url.clone(),
            asset: asked.asset,
            chain: asked.chain,
        };
        let session = self.make(method, &ask).await?;
        let status = StatusOf::Account { account: purchase.account, valid_until: purchase.valid_until };
        Ok(Answer {
            version: VERSION,
            payment_request: match session.details {
                PaymentDetails::Url(checkout_url) => Place::Url { checkout_url },
                PaymentDetails::Address { address, asset, chain } => Place::Address { address, asset, chain },
            },
            // What is paid later may be credited with less.
            expires_at: rfc3339(session.expires_at.min(purchase.pay_by)),
            token: purchase.token.as_ref().map(crate::macaroon::Macaroon::to_base64),
            bearer: purchase.token.as_ref().map(bearer),
            status_url: status.url(issuer),
        })
    }

    async fn by_lightning(
        &self,
        head: &Parts,
        gate: &Gate,
        offer: &Offer,
        price: Amount,
        context: &Context,
    ) -> Result<Answer, No> {
        let issuer = &*self.0.0;
        let bound = context.bound().ok_or(No::Because("payment_context_token is invalid"))?;
        let sold = sale::sell_bound(&gate.0, head, offer, price, bound).await?;
        answer::tell_challenge(&gate.0, &sold);
        Ok(Answer {
            version: VERSION,
            payment_request: Place::Lightning { lightning_invoice: sold.challenge.invoice().to_owned() },
            expires_at: rfc3339(sold.pay_by),
            token: Some(sold.challenge.token().to_base64()),
            bearer: None,
            status_url: StatusOf::lightning(&sold).url(issuer),
        })
    }

    async fn make(&self, method: &dyn PaymentMethod, ask: &CheckoutRequest) -> Result<CheckoutSession, No> {
        let issuer = &*self.0.0;
        let session = backend::call(issuer.limits.time_limit, || method.create_checkout(ask)).await;
        match session.and_then(|session| check(session, unix(issuer.clock.now()))) {
            Ok(session) => Ok(session),
            Err(error) if error.kind() == BackendErrorKind::Rejected => {
                Err(No::Because("the payment method does not make such a payment"))
            }
            Err(error) => Err(Refused::from(error).into()),
        }
    }
}

/// The version whose payment requests these are.
const VERSION: &str = "0.2.2";

/// What a gateway gave is shown to buyers, and so looked at.
fn check(session: CheckoutSession, now: u64) -> Result<CheckoutSession, BackendError> {
    let invalid = |what: &'static str| Err(BackendError::new(BackendErrorKind::InvalidResponse, what));
    let is_text =
        |text: &str, max| (1..=max).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
    let holds = match &session.details {
        PaymentDetails::Url(url) => {
            let is_web = url.starts_with("https://") || url.starts_with("http://");
            is_web && is_text(url, MAX_URL)
        }
        PaymentDetails::Address { address, asset, chain } => {
            [address, asset, chain].into_iter().all(|text| is_text(text, MAX_NAME))
        }
    };
    if !holds {
        return invalid("checkout has no URL or address that can be shown");
    }
    if session.expires_at <= now {
        return invalid("checkout has expired as soon as it was made");
    }
    Ok(session)
}

fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b':' | b'-'))
}

fn read(head: &Parts, body: &[u8]) -> Result<Asked, (StatusCode, &'static str)> {
    let query = head.uri.query().unwrap_or_default();
    if body.len() > MAX_BODY || query.len() > MAX_BODY {
        return Err((StatusCode::PAYLOAD_TOO_LARGE, "the request is too long"));
    }
    match head.method {
        Method::POST => serde_json::from_slice(body)
            .map_err(|_| (StatusCode::BAD_REQUEST, "the body is no JSON object of texts")),
        Method::GET => Ok(Asked {
            offer_id: parameter(query, "offer_id"),
            payment_method: parameter(query, "payment_method"),
            payment_context_token: parameter(query, "payment_context_token"),
            asset: parameter(query, "asset"),
            chain: parameter(query, "chain"),
            id: None,
        }),
        _ => Err((StatusCode::METHOD_NOT_ALLOWED, "send a POST")),
    }
}

/// A parameter of a query. None of ours has a character that is escaped.
pub(super) fn parameter(query: &str, name: &str) -> Option<String> {
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.find(|(key, _)| *key == name).map(|(_, value)| value.to_owned())
}

fn answered(head: &Parts, answer: &Answer) -> Response<Bytes> {
    let mut response = json(StatusCode::OK, answer);
    if let (&Method::GET, Place::Url { checkout_url }) = (&head.method, &answer.payment_request) {
        if let Ok(location) = HeaderValue::from_str(checkout_url) {
            *response.status_mut() = StatusCode::SEE_OTHER;
            response.headers_mut().insert(LOCATION, location);
        }
    }
    response
}

/// What was refused, where a payment is asked for and not presented.
pub(super) fn refused_as(refusal: &Refusal) -> Response<Bytes> {
    let status = match refusal.status() {
        StatusCode::PAYMENT_REQUIRED | StatusCode::UNAUTHORIZED => StatusCode::BAD_REQUEST,
        status => status,
    };
    let mut response = error(status, refusal.detail());
    if let Some(wait) = refusal.retry_after() {
        let seconds = wait.as_millis().div_ceil(1000).min(3600).to_string();
        response.headers_mut().insert(RETRY_AFTER, seconds.parse().expect("digits"));
    }
    response.extensions_mut().insert(refusal.clone());
    response
}

pub(super) fn error(status: StatusCode, error: &str) -> Response<Bytes> {
    #[derive(Serialize)]
    struct Error<'a> {
        error: &'a str,
    }
    json(status, &Error { error })
}

pub(super) fn json(status: StatusCode, body: &impl Serialize) -> Response<Bytes> {
    let json = serde_json::to_vec(body).expect("strings and numbers serialize");
    let mut response = Response::new(json.into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
