//! How a method of payment is joined: a card, a bank, a chain, or a gateway on
//! another host.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use http::StatusCode;
use http::request::Parts;

use crate::backend::BackendError;
use crate::price::{Amount, Unit};

/// A way to pay beside Lightning.
///
/// # Contract
/// - A checkout is for exactly the [amount](CheckoutRequest::amount) and carries
///   the [order](CheckoutRequest::order), unchanged, to every webhook that tells
///   of its payment. The order is no secret, and worth nothing without the
///   provider's signature.
/// - The webhook's signature is checked on the raw body, in constant time,
///   before anything of it is read as more than bytes; and its time, so that a
///   copy of it is worth nothing minutes later. That a copy within those minutes
///   changes nothing is the checkout's business and not the method's.
/// - A payment has one id, the same in every webhook of it; two payments never
///   have the same one. It is credited once, whatever the number of webhooks.
/// - [`PaymentState::Settled`] says that the money is there. What may still fail
///   is [`PaymentState::Pending`].
///
/// ```
/// use std::time::SystemTime;
///
/// use async_trait::async_trait;
/// use http::request::Parts;
/// use l402::checkout::{CheckoutRequest, CheckoutSession, PaymentEvent, PaymentMethod, WebhookError};
/// use l402::{BackendError, BackendErrorKind};
///
/// #[derive(Debug)]
/// struct Bank;
///
/// #[async_trait]
/// impl PaymentMethod for Bank {
///     fn name(&self) -> &str {
///         "bank"
///     }
///
///     fn payment_type(&self) -> &str {
///         "Bank transfer"
///     }
///
///     async fn create_checkout(&self, ask: &CheckoutRequest) -> Result<CheckoutSession, BackendError> {
///         // POST ask.amount, ask.title and ask.order to the bank; then
///         Ok(CheckoutSession::redirect("https://bank.example/pay/1", ask.expires_at))
///     }
///
///     async fn read_webhook(
///         &self,
///         head: &Parts,
///         body: &[u8],
///         now: SystemTime,
///     ) -> Result<Vec<PaymentEvent>, WebhookError> {
///         Err(WebhookError::Signature)
///     }
/// }
/// ```
#[async_trait]
pub trait PaymentMethod: fmt::Debug + Send + Sync {
    /// The name in `payment_methods` and in the path of the webhook:
    /// `[a-z0-9_]{1,32}`, as `credit_card`, `onchain`, `bank`. `lightning` is
    /// taken. Payments are told apart by it: keep it.
    fn name(&self) -> &str;

    /// The name for people, as version 1.0 has it in `payment_type`: `Credit
    /// Card`, `Stripe`.
    fn payment_type(&self) -> &str;

    /// Whether it takes amounts in this unit; unless written otherwise, those of
    /// every currency, and no bitcoin. An offer in another unit is not sold by it.
    fn takes(&self, unit: Unit) -> bool {
        matches!(unit, Unit::Minor(_))
    }

    /// Makes a checkout, at which this amount can be paid until then.
    ///
    /// # Errors
    /// Why there is none. The client is answered 503, or 400 where the provider
    /// [rejects](crate::BackendErrorKind::Rejected) what was asked.
    ///
    /// # Cancel safety
    /// It may be dropped at any await. What was made is then left to expire.
    async fn create_checkout(&self, ask: &CheckoutRequest) -> Result<CheckoutSession, BackendError>;

    /// Reads a webhook: head and raw body, as they came. It may ask the provider
    /// for what the webhook leaves out. Where it tells of nothing that concerns an
    /// order, as of other sales of the same account, it gives nothing.
    ///
    /// # Errors
    /// The webhook is not the provider's, too old, or unreadable.
    async fn read_webhook(
        &self,
        head: &Parts,
        body: &[u8],
        now: SystemTime,
    ) -> Result<Vec<PaymentEvent>, WebhookError>;
}

#[async_trait]
impl<M: PaymentMethod + ?Sized> PaymentMethod for Arc<M> {
    fn name(&self) -> &str {
        (**self).name()
    }

    fn payment_type(&self) -> &str {
        (**self).payment_type()
    }

    fn takes(&self, unit: Unit) -> bool {
        (**self).takes(unit)
    }

    async fn create_checkout(&self, ask: &CheckoutRequest) -> Result<CheckoutSession, BackendError> {
        (**self).create_checkout(ask).await
    }

    async fn read_webhook(
        &self,
        head: &Parts,
        body: &[u8],
        now: SystemTime,
    ) -> Result<Vec<PaymentEvent>, WebhookError> {
        (**self).read_webhook(head, body, now).await
    }
}

/// A checkout that is asked for.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CheckoutRequest {
    /// What is sold to whom, under a MAC: fewer than 500 characters of
    /// `[A-Za-z0-9_-]`, to go with the payment and come back in its webhooks.
    pub order: String,
    /// A key for idempotent creation, of 64 hex digits: the same for the same
    /// choice of the same client, as when it asks again.
    pub idempotency_key: String,
    /// What is to be paid.
    pub amount: Amount,
    /// What the payer is shown.
    pub title: String,
    /// A longer text for the payer.
    pub description: Option<String>,
    /// The name of the service that is sold.
    pub service: String,
    /// The id of the offer that is sold.
    pub offer: String,
    /// The unix second until which it is to be payable. A provider that cannot
    /// set it says its own in [`CheckoutSession`].
    pub expires_at: u64,
    /// Where the payer's browser goes after the payment, if the operator said.
    pub return_url: Option<String>,
    /// The asset that the client wants to pay with, as `usdc`: 1 to 64 of
    /// `[A-Za-z0-9._:-]`.
    pub asset: Option<String>,
    /// The chain that it wants to pay on, as `base-mainnet`; of the same characters.
    pub chain: Option<String>,
}

/// A checkout that was made: where to pay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckoutSession {
    pub(crate) details: PaymentDetails,
    pub(crate) expires_at: u64,
}

impl CheckoutSession {
    /// To be paid at this URL, until this unix second.
    pub fn redirect(url: impl Into<String>, expires_at: u64) -> Self {
        Self { details: PaymentDetails::Url(url.into()), expires_at }
    }

    /// To be paid to this address, in this asset on this chain, until this unix
    /// second.
    pub fn address(
        address: impl Into<String>,
        asset: impl Into<String>,
        chain: impl Into<String>,
        expires_at: u64,
    ) -> Self {
        let (address, asset, chain) = (address.into(), asset.into(), chain.into());
        Self { details: PaymentDetails::Address { address, asset, chain }, expires_at }
    }

    /// Where to pay.
    pub fn details(&self) -> &PaymentDetails {
        &self.details
    }

    /// The unix second until which it can be paid.
    pub fn expires_at(&self) -> u64 {
        self.expires_at
    }
}

/// Where to pay.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PaymentDetails {
    /// At a page, which a person opens.
    Url(String),
    /// To an address.
    Address {
        /// The address.
        address: String,
        /// What is paid, as `usdc`.
        asset: String,
        /// On which chain, as `base-mainnet`.
        chain: String,
    },
}

/// What a webhook says of one payment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PaymentEvent {
    pub(crate) payment: String,
    pub(crate) order: String,
    pub(crate) state: PaymentState,
}

impl PaymentEvent {
    /// The payment of this id, made for this order, is in this state. The id is
    /// the provider's: the same in every webhook of the payment, 255 bytes at most.
    pub fn new(payment: impl Into<String>, order: impl Into<String>, state: PaymentState) -> Self {
        Self { payment: payment.into(), order: order.into(), state }
    }

    /// The provider's id of the payment.
    pub fn payment(&self) -> &str {
        &self.payment
    }

    /// The order, as it came with the payment.
    pub fn order(&self) -> &str {
        &self.order
    }

    /// What became of it.
    pub fn state(&self) -> PaymentState {
        self.state
    }
}

/// What became of a payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PaymentState {
    /// It was begun, and may still fail: nothing is credited.
    Pending,
    /// This much was paid, for good. Less than the order is for, or another
    /// currency, credits nothing.
    Settled {
        /// What arrived.
        amount: Amount,
    },
    /// It was given back: what it bought is revoked.
    Refunded,
    /// The payer disputes it: what it bought is revoked.
    Disputed,
    /// It failed, or can no longer be made: nothing is credited.
    Failed,
}

/// Why a webhook is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WebhookError {
    /// It has no signature, or one that is not the provider's.
    #[error("webhook has no valid signature")]
    Signature,
    /// It was signed too long ago, or in the future.
    #[error("webhook was signed at another time")]
    Stale,
    /// It is signed, and cannot be read.
    #[error("webhook cannot be read")]
    Malformed,
    /// What it leaves out cannot be asked now: the provider sends it again.
    #[error("what the webhook leaves out cannot be asked")]
    Unavailable(#[source] BackendError),
}

impl WebhookError {
    /// The status of the answer.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Signature | Self::Stale => StatusCode::UNAUTHORIZED,
            Self::Malformed => StatusCode::BAD_REQUEST,
            Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}
