//! Stripe Checkout: a page of Stripe's on which a person pays by card, or by
//! whatever else the account takes.
//!
//! The facts are those of Stripe's documentation (the API reference at
//! docs.stripe.com/api: `checkout/sessions/create`, `checkout/sessions/object`,
//! `payment_intents/retrieve`, `charges/object`, `disputes/object`,
//! `idempotent_requests`, `metadata`; and docs.stripe.com/webhooks and /currencies),
//! and the tests run against a fake that was written after it.

mod config;
mod event;
mod signature;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use http::header::{AUTHORIZATION, HeaderName, HeaderValue};
use http::request::Parts;
use http::{StatusCode, Uri};
use serde::Deserialize;

use config::Checked;
pub use config::StripeConfig;
use event::{PaymentIntent, Told};

use super::{CheckoutRequest, CheckoutSession, PaymentEvent, PaymentMethod, WebhookError};
use crate::backend::http::{Answer, Ask, Http, Reach};
use crate::backend::tls::Trust;
use crate::backend::{BackendError, BackendErrorKind};
use crate::error::Error;
use crate::price::Unit;

/// How long Stripe may take to make a session, and to show a payment.
const CREATE_TIME_LIMIT: Duration = Duration::from_secs(10);
const READ_TIME_LIMIT: Duration = Duration::from_secs(5);

/// The version of the API that requests and answers are written for.
const VERSION: &str = "2025-09-30.clover";
const STRIPE_VERSION: HeaderName = HeaderName::from_static("stripe-version");
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Currencies whose smallest unit is another one to Stripe than to ISO 4217, by a
/// factor of a hundred (docs.stripe.com/currencies).
const OTHER_UNITS: [&str; 3] = ["ISK", "MGA", "UGX"];

/// The payment method `credit_card`, by Stripe Checkout.
///
/// A checkout is a session of exactly one item at exactly the amount: no currency
/// of the payer's choice (Adaptive Pricing is off for it), no promotion code. Its
/// `metadata` and that of its payment have the order, under `l402_order`.
///
/// In Stripe's dashboard make a webhook endpoint at
/// `<base_url>/webhooks/credit_card`, of API version `2025-09-30.clover`, for
///
/// | event | what it does |
/// |---|---|
/// | `checkout.session.completed` | credits what is `paid`; `unpaid` is pending, as of a debit that takes days |
/// | `checkout.session.async_payment_succeeded` | credits |
/// | `checkout.session.async_payment_failed`, `checkout.session.expired` | tells that nothing will be paid |
/// | `charge.refunded` | a full refund revokes; one in part takes nothing back |
/// | `charge.dispute.created` | revokes, and so does an inquiry, which comes as the same event |
///
/// What is bought begins to run when the session ends, and not when a debit
/// arrives: a pass is shorter by the days that it takes, and access that is over
/// by then is not credited
/// ([`TooLate`](crate::event::PaymentOutcome::TooLate)). For short access turn
/// delayed methods off in the dashboard.
///
/// Others are answered 200 and passed over, and so are sales of the account that
/// are not of a checkout of this crate. What is revoked stays revoked, even where
/// a dispute is won: sell it anew. To take back what was refunded in part, use
/// [`Issuer::revoke`](crate::Issuer::revoke).
///
/// A restricted key is enough, and the one to use: write for Checkout Sessions, and
/// read for `PaymentIntents`, which are asked for the order of a dispute. Prices in
/// bitcoin are not taken, nor those in ISK, MGA and UGX, whose smallest unit Stripe
/// counts otherwise. Stripe has a least amount for each currency, and of those with
/// three decimals it takes multiples of ten alone: what it refuses is answered 400.
///
/// Checked against Stripe's documentation and a fake that speaks it, not against
/// Stripe.
///
/// ```no_run
/// use l402::checkout::{CheckoutConfig, StripeCheckout, StripeConfig};
///
/// let stripe = StripeCheckout::new(StripeConfig::from_env()?)?;
/// let checkout = CheckoutConfig::new("https://api.example.com/l402").add_method(stripe);
/// # Ok::<(), l402::Error>(())
/// ```
#[derive(Clone)]
pub struct StripeCheckout {
    http: Http,
    config: Arc<Checked>,
}

impl StripeCheckout {
    /// The method, on this account. Stripe is not asked yet.
    ///
    /// # Errors
    /// A key or secret is not one of Stripe's form, or a URL is none.
    pub fn new(config: StripeConfig) -> Result<Self, Error> {
        Ok(Self { http: Http::new(Trust::Public, Reach::Any), config: config.check()?.into() })
    }

    async fn send(&self, ask: Ask, time_limit: Duration) -> Result<Answer, BackendError> {
        let ask = ask
            .header(AUTHORIZATION, self.config.authorization.clone())
            .header(STRIPE_VERSION, HeaderValue::from_static(VERSION));
        self.http.send(ask, time_limit).await
    }

    /// The order of a payment; `None` where it has none.
    async fn order_of(&self, payment: &str) -> Result<Option<String>, WebhookError> {
        if !(1..=255).contains(&payment.len())
            || !payment.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        {
            return Err(WebhookError::Malformed);
        }
        let ask = Ask::get(uri(&self.config.base, &format!("/v1/payment_intents/{payment}")));
        let found = self.send(ask, READ_TIME_LIMIT).await.and_then(|answer| answer.json());
        let found: PaymentIntent = found.map_err(WebhookError::Unavailable)?;
        if found.id != payment {
            let what = "answer is about another payment";
            let error = BackendError::new(BackendErrorKind::InvalidResponse, what);
            return Err(WebhookError::Unavailable(error));
        }
        Ok(found.metadata.and_then(|metadata| metadata.l402_order))
    }
}

fn uri(base: &str, path: &str) -> Uri {
    format!("{base}{path}").parse().expect("a path behind a URL is one")
}

/// A session, as the API shows it.
#[derive(Deserialize)]
struct Session {
    url: Option<String>,
    expires_at: u64,
}

#[async_trait]
impl PaymentMethod for StripeCheckout {
    fn name(&self) -> &'static str {
        "credit_card"
    }

    fn payment_type(&self) -> &'static str {
        "Stripe"
    }

    fn takes(&self, unit: Unit) -> bool {
        matches!(unit, Unit::Minor(currency) if !OTHER_UNITS.contains(&currency.as_str()))
    }

    async fn create_checkout(&self, ask: &CheckoutRequest) -> Result<CheckoutSession, BackendError> {
        let unit = ask.amount.unit();
        if !self.takes(unit) {
            return Err(BackendError::new(BackendErrorKind::Unsupported, "Stripe takes no such amount"));
        }
        let (units, currency) = (ask.amount.value().to_string(), unit.to_string());
        let expires_at = ask.expires_at.to_string();
        // For whoever looks at it in the dashboard; the order is too long for it.
        let reference = format!("{}:{}", ask.service, ask.offer);
        let mut form = vec![
            ("mode", "payment"),
            ("line_items[0][quantity]", "1"),
            ("line_items[0][price_data][currency]", &*currency),
            ("line_items[0][price_data][unit_amount]", &*units),
            ("line_items[0][price_data][product_data][name]", &*ask.title),
            ("client_reference_id", &*reference),
            ("metadata[l402_order]", &*ask.order),
            // Stripe copies it to the charge, which a refund is of.
            ("payment_intent_data[metadata][l402_order]", &*ask.order),
            ("adaptive_pricing[enabled]", "false"),
            ("expires_at", &*expires_at),
            ("success_url", ask.return_url.as_deref().unwrap_or(&self.config.return_url)),
        ];
        // An empty text would be an error.
        if let Some(text) = ask.description.as_deref().filter(|text| !text.is_empty()) {
            form.push(("line_items[0][price_data][product_data][description]", text));
        }
        let key = HeaderValue::from_str(&ask.idempotency_key)
            .map_err(|cause| BackendError::new(BackendErrorKind::Rejected, cause))?;
        let ask = Ask::post(uri(&self.config.base, "/v1/checkout/sessions")).form(&form);
        let answer = self.send(ask.header(IDEMPOTENCY_KEY, key), CREATE_TIME_LIMIT).await?;
        // The same is being made for the same client at this moment.
        if answer.status == StatusCode::CONFLICT {
            return Err(BackendError::new(BackendErrorKind::Backend, "status 409"));
        }
        let Session { url, expires_at } = answer.json()?;
        let no_url = || BackendError::new(BackendErrorKind::InvalidResponse, "session has no URL");
        Ok(CheckoutSession::redirect(url.ok_or_else(no_url)?, expires_at))
    }

    async fn read_webhook(
        &self,
        head: &Parts,
        body: &[u8],
        now: SystemTime,
    ) -> Result<Vec<PaymentEvent>, WebhookError> {
        signature::verify(&self.config.webhook_keys, &head.headers, body, now)?;
        let Some(Told { payment, order, state }) = event::read(body)? else { return Ok(Vec::new()) };
        let order = match order {
            Some(order) => Some(order),
            None => self.order_of(&payment).await?,
        };
        Ok(order.map(|order| PaymentEvent::new(payment, order, state)).into_iter().collect())
    }
}

impl fmt::Debug for StripeCheckout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StripeCheckout").field("url", &self.config.base).finish_non_exhaustive()
    }
}
