//! Webhooks: a provider tells what became of a payment.
//!
//! What a webhook can do: credit an order that this server made, once for each
//! payment, and never more than the order says; and revoke what an order bought.
//! It names neither account nor units: the order does, under the server's own MAC.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use serde::Serialize;

use super::counter::Checkout;
use super::order::Order;
use super::request::{error, json, refused_as};
use super::seal::Broken;
use super::{PaymentEvent, PaymentState, WebhookError};
use crate::backend::BackendError;
use crate::clock::unix;
use crate::event::{Event, PaymentOutcome};
use crate::ledger::{LedgerError, Revocation};
use crate::preimage::PaymentHash;
use crate::refusal::Refusal;
use crate::sync::timeout;

/// Longest body of a webhook, in bytes.
const MAX_BODY: usize = 256 * 1024;
/// Most events of one webhook.
const MAX_EVENTS: usize = 100;
/// Longest id of a payment, in bytes.
const MAX_PAYMENT: usize = 255;
/// How long a method may take to read a webhook.
const TIME_LIMIT: Duration = Duration::from_secs(10);

#[derive(Serialize)]
struct Received {
    received: bool,
}

impl Checkout {
    /// Takes a webhook of the payment method of this name, with its raw body. The
    /// route is `<base_url>/webhooks/<method>`, `POST`.
    ///
    /// The answer is 2xx once what it tells is durable: 503 where the ledger is
    /// down, so that the provider sends it again; 401 without a valid signature, or
    /// outside its time; 400 where it cannot be read; 404 for another method. Sent
    /// again, by anybody and in any order, it changes nothing. A body of more than
    /// 256 KiB is refused: read no more of it.
    ///
    /// # Cancel safety
    /// Dropped, what was begun at the ledger is done all the same. The provider
    /// has no answer, and sends it again.
    ///
    /// # Panics
    /// Outside a tokio runtime with time enabled.
    pub async fn handle_webhook(&self, method: &str, request: Request<Bytes>) -> Response<Bytes> {
        let (head, body) = request.into_parts();
        let Some(known) = self.counter().method(method) else {
            return error(StatusCode::NOT_FOUND, "no such payment method");
        };
        if head.method != Method::POST {
            return error(StatusCode::METHOD_NOT_ALLOWED, "send a POST");
        }
        if body.len() > MAX_BODY {
            return error(StatusCode::PAYLOAD_TOO_LARGE, "the webhook is too long");
        }
        let now = self.0.0.clock.now();
        let Ok(mut read) = catch_unwind(AssertUnwindSafe(|| known.read_webhook(&head, &body, now))) else {
            return refused(&WebhookError::Malformed);
        };
        let caught = poll_fn(|cx| {
            catch_unwind(AssertUnwindSafe(|| read.as_mut().poll(cx)))
                .unwrap_or_else(|_| Poll::Ready(Err(WebhookError::Malformed)))
        });
        let too_slow = |_| Err(WebhookError::Unavailable(BackendError::timeout()));
        let events = match timeout(TIME_LIMIT, caught).await.unwrap_or_else(too_slow) {
            Ok(events) if events.len() <= MAX_EVENTS => events,
            Ok(_) => return refused(&WebhookError::Malformed),
            Err(error) => return refused(&error),
        };
        for event in &events {
            match self.apply(known.name(), event).await {
                Ok(()) => {}
                Err(Failure::Malformed) => return refused(&WebhookError::Malformed),
                Err(Failure::Ledger) => return refused_as(&Refusal::LedgerUnavailable),
            }
        }
        json(StatusCode::OK, &Received { received: true })
    }

    async fn apply(&self, method: &str, event: &PaymentEvent) -> Result<(), Failure> {
        let issuer = &*self.0.0;
        let PaymentEvent { payment, order, state } = event;
        if !(1..=MAX_PAYMENT).contains(&payment.len()) || !payment.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(Failure::Malformed);
        }
        let opened = Order::open(order, &issuer.keys.load());
        let order = match opened {
            Ok(order) if order.method == method => order,
            // Of another server with the same account at the provider, or of keys
            // that are gone. Sent again it would be no better.
            Err(Broken::UnknownKey) => {
                issuer.events.tell(|| Event::Payment {
                    method,
                    payment,
                    service: None,
                    offer: None,
                    outcome: PaymentOutcome::UnknownOrder,
                });
                return Ok(());
            }
            Ok(_) | Err(Broken::Forged) => return Err(Failure::Malformed),
        };
        let outcome = match *state {
            PaymentState::Pending => PaymentOutcome::Pending,
            PaymentState::Failed => PaymentOutcome::Failed,
            PaymentState::Settled { amount } if amount.unit() != order.amount.unit() => {
                PaymentOutcome::WrongCurrency
            }
            PaymentState::Settled { amount } if amount.value() < order.amount.value() => {
                PaymentOutcome::Underpaid
            }
            // The ledger may have forgotten whether it was credited.
            PaymentState::Settled { .. } if order.valid_until <= unix(issuer.clock.now()) => {
                PaymentOutcome::TooLate
            }
            PaymentState::Settled { .. } => {
                self.credit(&order, format!("{method}:{payment}")).await?;
                if self.is_revoked(&order) { PaymentOutcome::Revoked } else { PaymentOutcome::Settled }
            }
            PaymentState::Refunded => {
                self.revoke(&order).await?;
                PaymentOutcome::Refunded
            }
            PaymentState::Disputed => {
                self.revoke(&order).await?;
                PaymentOutcome::Disputed
            }
        };
        issuer.events.tell(|| Event::Payment {
            method,
            payment,
            service: Some(&order.service),
            offer: Some(&order.offer),
            outcome,
        });
        Ok(())
    }

    async fn credit(&self, order: &Order, event_id: String) -> Result<(), Failure> {
        let issuer = &*self.0.0;
        let Order { account, units, valid_until, .. } = *order;
        let meter = issuer.meter.as_ref().ok_or(Failure::Ledger)?;
        let ledger = meter.ledger.clone();
        let credited = async move { ledger.credit(&account, units, &event_id, valid_until).await };
        meter.run_to_end(credited).await?;
        if let Some(accounts) = &issuer.accounts {
            accounts.remember(account, valid_until);
        }
        Ok(())
    }

    /// Whether the account of an order opens nothing any more.
    fn is_revoked(&self, order: &Order) -> bool {
        let issuer = &*self.0.0;
        let account = PaymentHash::from_bytes(*order.account.as_bytes());
        issuer.revocations().contains(account, issuer.token_id_of_now(), &order.service)
    }

    async fn revoke(&self, order: &Order) -> Result<(), Failure> {
        let account = PaymentHash::from_bytes(*order.account.as_bytes());
        Ok(self.0.revoke(Revocation::Token(account)).await?)
    }
}

enum Failure {
    Malformed,
    Ledger,
}

impl From<LedgerError> for Failure {
    fn from(_: LedgerError) -> Self {
        Self::Ledger
    }
}

fn refused(why: &WebhookError) -> Response<Bytes> {
    error(why.status(), &why.to_string())
}
