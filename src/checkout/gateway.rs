//! A payment method on another host: a gateway that is asked for checkouts and
//! calls back, both under a shared secret.
//!
//! ```text
//! server  -> gateway   POST <url>                     {order, amount, currency, ..}
//! gateway -> server    {checkout_url} or {address, asset, chain} [, expires_at]
//! gateway -> server    POST <base_url>/webhooks/<name>  {payment, order, state, amount, currency}
//! ```
//!
//! Either POST carries `L402-Signature`. Amounts are in minor units, of bitcoin
//! satoshi (`BTC`); times are unix seconds.

use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use http::Uri;
use http::request::Parts;
use serde::{Deserialize, Serialize};

use super::money::minor;
use super::secret::SIGNATURE;
use super::{
    CheckoutRequest, CheckoutSession, PaymentEvent, PaymentMethod, PaymentState, WebhookError, WebhookSecret,
};
use crate::backend::http::{Ask, Http, Reach};
use crate::backend::tls::Trust;
use crate::backend::{BackendError, BackendErrorKind};
use crate::clock::{Clock, SystemClock};
use crate::error::{Error, ErrorKind};
use crate::price::{Amount, Currency, Price, Unit};

/// How long an answer may take: less than a checkout waits.
const TIME_LIMIT: Duration = Duration::from_secs(8);

/// What a server asks a gateway for, as it stands on the wire.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct GatewayRequest {
    /// To come back in the webhook, unchanged.
    pub order: String,
    /// The same for the same choice of the same client.
    pub idempotency_key: String,
    /// What is to be paid, in minor units; of bitcoin satoshi.
    pub amount: u64,
    /// The currency of the amount: a code of ISO 4217, or `BTC`.
    pub currency: String,
    /// What the payer is shown.
    pub title: String,
    /// A longer text for the payer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The name of the service that is sold.
    pub service: String,
    /// The id of the offer that is sold.
    pub offer: String,
    /// The unix second until which it is to be payable.
    pub expires_at: u64,
    /// Where the payer's browser goes after the payment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub return_url: Option<String>,
    /// The asset that the client wants to pay with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asset: Option<String>,
    /// The chain that it wants to pay on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chain: Option<String>,
}

/// What a gateway answers.
#[derive(Deserialize)]
struct Answer {
    checkout_url: Option<String>,
    address: Option<String>,
    asset: Option<String>,
    chain: Option<String>,
    expires_at: Option<u64>,
}

/// A webhook on the wire.
#[derive(Serialize, Deserialize)]
struct Told {
    payment: String,
    order: String,
    state: State,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    amount: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    currency: Option<String>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Pending,
    Settled,
    Refunded,
    Disputed,
    Failed,
}

/// A payment method of a gateway that speaks the signed webhook: for any provider
/// that the crate does not know, on this host or another, by a page or by an
/// address on a chain.
///
/// ```
/// use l402::checkout::{CheckoutConfig, SignedWebhook, WebhookSecret};
///
/// # let secret = [7; 32];
/// let onchain = SignedWebhook::new("onchain", "On-chain", "https://pay.example/checkouts", WebhookSecret::new(secret)?)?;
/// let checkout = CheckoutConfig::new("https://api.example.com/l402").add_method(onchain.with_bitcoin());
/// # Ok::<(), l402::Error>(())
/// ```
///
/// The gateway can credit what it was asked to sell, and nothing else: orders of
/// other methods and of other servers are none of its own. It calls back with
/// [`WebhookSender`]. HTTPS outside of one's own network, for the order is all
/// that a signature keeps from being altered, and nothing keeps it from being read.
#[derive(Clone, Debug)]
pub struct SignedWebhook {
    name: String,
    payment_type: String,
    url: Uri,
    secrets: Vec<WebhookSecret>,
    takes_bitcoin: bool,
    http: Http,
}

impl SignedWebhook {
    /// The method of this name ([`PaymentMethod::name`]) and this name for people,
    /// whose checkouts are made at this URL.
    ///
    /// # Errors
    /// The URL is none.
    pub fn new(
        name: impl Into<String>,
        payment_type: impl Into<String>,
        url: &str,
        secret: WebhookSecret,
    ) -> Result<Self, Error> {
        let (name, payment_type, url) = (name.into(), payment_type.into(), read_url(url)?);
        Ok(Self { name, payment_type, url, secrets: vec![secret], takes_bitcoin: false, http: http() })
    }

    /// Takes webhooks under this older secret too, until the gateway has the new one.
    pub fn add_secret(mut self, secret: WebhookSecret) -> Self {
        self.secrets.push(secret);
        self
    }

    /// Takes amounts in bitcoin beside those in currencies.
    pub fn with_bitcoin(mut self) -> Self {
        self.takes_bitcoin = true;
        self
    }
}

#[async_trait]
impl PaymentMethod for SignedWebhook {
    fn name(&self) -> &str {
        &self.name
    }

    fn payment_type(&self) -> &str {
        &self.payment_type
    }

    fn takes(&self, unit: Unit) -> bool {
        self.takes_bitcoin || unit != Unit::Msat
    }

    async fn create_checkout(&self, ask: &CheckoutRequest) -> Result<CheckoutSession, BackendError> {
        let (amount, currency) = minor(ask.amount);
        let request = GatewayRequest {
            order: ask.order.clone(),
            idempotency_key: ask.idempotency_key.clone(),
            amount,
            currency,
            title: ask.title.clone(),
            description: ask.description.clone(),
            service: ask.service.clone(),
            offer: ask.offer.clone(),
            expires_at: ask.expires_at,
            return_url: ask.return_url.clone(),
            asset: ask.asset.clone(),
            chain: ask.chain.clone(),
        };
        let answer: Answer = post(&self.http, &self.url, &self.secrets[0], &request).await?;
        let expires_at = answer.expires_at.unwrap_or(ask.expires_at);
        match answer {
            Answer { checkout_url: Some(url), .. } => Ok(CheckoutSession::redirect(url, expires_at)),
            Answer { address: Some(address), asset: Some(asset), chain: Some(chain), .. } => {
                Ok(CheckoutSession::address(address, asset, chain, expires_at))
            }
            _ => Err(BackendError::new(
                BackendErrorKind::InvalidResponse,
                "gateway gave neither a URL nor address, asset and chain",
            )),
        }
    }

    async fn read_webhook(
        &self,
        head: &Parts,
        body: &[u8],
        now: SystemTime,
    ) -> Result<Vec<PaymentEvent>, WebhookError> {
        let mut refused = None;
        for secret in &self.secrets {
            match secret.verify(&head.headers, body, now) {
                Ok(()) => return Ok(vec![read(body).ok_or(WebhookError::Malformed)?]),
                // One that is too old is of the right secret.
                Err(error @ WebhookError::Stale) => refused = Some(error),
                Err(_) => {}
            }
        }
        Err(refused.unwrap_or(WebhookError::Signature))
    }
}

fn read(body: &[u8]) -> Option<PaymentEvent> {
    let Told { payment, order, state, amount, currency } = serde_json::from_slice(body).ok()?;
    let state = match state {
        State::Pending => PaymentState::Pending,
        State::Settled => PaymentState::Settled { amount: read_amount(amount?, &currency?)? },
        State::Refunded => PaymentState::Refunded,
        State::Disputed => PaymentState::Disputed,
        State::Failed => PaymentState::Failed,
    };
    Some(PaymentEvent { payment, order, state })
}

/// Reads an amount in minor units, of bitcoin satoshi.
fn read_amount(amount: u64, currency: &str) -> Option<Amount> {
    let price = if currency.eq_ignore_ascii_case("BTC") {
        Price::try_msat(amount.checked_mul(1000)?)
    } else {
        Price::try_minor(amount, Currency::from_code(currency)?)
    };
    match price {
        Ok(Price::Amount(amount)) => Some(amount),
        _ => None,
    }
}

/// The gateway's side: tells a server what became of its payments.
///
/// ```no_run
/// use l402::checkout::{PaymentEvent, PaymentState, WebhookSecret, WebhookSender};
/// # async fn settle(order: String) -> Result<(), Box<dyn std::error::Error>> {
/// # let secret = [7; 32];
/// let sender = WebhookSender::new("https://api.example.com/l402/webhooks/bank", WebhookSecret::new(secret)?)?;
/// // Until it is there: a webhook that is sent twice changes nothing.
/// while sender.send(&PaymentEvent::new("payment-17", &order, PaymentState::Refunded)).await.is_err() {
///     tokio::time::sleep(std::time::Duration::from_secs(30)).await;
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct WebhookSender {
    url: Uri,
    secret: WebhookSecret,
    http: Http,
}

impl WebhookSender {
    /// Calls back at this URL: `<base_url>/webhooks/<method>` of the server.
    ///
    /// # Errors
    /// The URL is none.
    pub fn new(url: &str, secret: WebhookSecret) -> Result<Self, Error> {
        Ok(Self { url: read_url(url)?, secret, http: http() })
    }

    /// Sends what became of a payment, once, and waits until the server has it.
    ///
    /// # Errors
    /// The server was not reached, or did not take it: send it again later, for
    /// days if need be, since the buyer has paid.
    /// [`Auth`](BackendErrorKind::Auth) and
    /// [`Rejected`](BackendErrorKind::Rejected) are for a person to look at.
    pub async fn send(&self, event: &PaymentEvent) -> Result<(), BackendError> {
        #[derive(Deserialize)]
        struct Received {}

        let (state, paid) = match event.state() {
            PaymentState::Pending => (State::Pending, None),
            PaymentState::Settled { amount } => (State::Settled, Some(received(amount))),
            PaymentState::Refunded => (State::Refunded, None),
            PaymentState::Disputed => (State::Disputed, None),
            PaymentState::Failed => (State::Failed, None),
        };
        let (amount, currency) = paid.unzip();
        let (payment, order) = (event.payment().to_owned(), event.order().to_owned());
        let told = Told { payment, order, state, amount, currency };
        post(&self.http, &self.url, &self.secret, &told).await.map(|Received {}| ())
    }
}

/// What was received, as it is told: parts of a satoshi are no satoshi.
fn received(amount: Amount) -> (u64, String) {
    match amount.unit() {
        Unit::Msat => (amount.value() / 1000, "BTC".to_owned()),
        Unit::Minor(_) => minor(amount),
    }
}

fn http() -> Http {
    Http::new(Trust::Public, Reach::Any)
}

async fn post<T: serde::de::DeserializeOwned>(
    http: &Http,
    url: &Uri,
    secret: &WebhookSecret,
    body: &impl Serialize,
) -> Result<T, BackendError> {
    let ask = Ask::post(url.clone()).json(body);
    // By this host's own clock: the other side compares it with its own.
    let signature = secret.sign(ask.body(), SystemClock.now());
    http.send(ask.header(SIGNATURE, signature), TIME_LIMIT).await?.json()
}

fn read_url(url: &str) -> Result<Uri, Error> {
    let uri: Option<Uri> = url.parse().ok();
    let uri = uri.filter(|uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some());
    uri.ok_or_else(|| Error::new(ErrorKind::Checkout, format!("`{url}` is no `https://` or `http://` URL")))
}
