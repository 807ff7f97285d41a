//! What the wallets share: one attempt to pay, and what is believed of its
//! outcome.

use std::time::Duration;

use serde::Deserialize;
use tokio::time::{Instant, sleep};
use zeroize::Zeroizing;

use super::{PayError, PayErrorKind, Payment, PaymentRequest, PaymentStatus, Wallet};
use crate::backend::http::Answer;
use crate::backend::{BackendError, BackendErrorKind};
use crate::bolt11;
use crate::clock::{Clock as _, SystemClock, unix};
use crate::preimage::{PaymentHash, Preimage};

/// How much longer than the payment may be tried its answer is waited for.
const GRACE: Duration = Duration::from_secs(3);
/// How long a wallet may take to say what became of a payment.
pub(super) const STATUS_TIME_LIMIT: Duration = Duration::from_secs(5);
/// How often it is asked about a payment that is on its way: at first, doubled
/// every time, and at most.
const MIN_PAUSE: Duration = Duration::from_millis(50);
const MAX_PAUSE: Duration = Duration::from_secs(2);
/// Longest time that a payment is tried, however long it may be.
const MAX_TIME_LIMIT: Duration = Duration::from_secs(24 * 60 * 60);

/// How long a payment is tried: whole seconds, and one at least, which is what
/// wallets take.
pub(super) fn tried_for(payment: &PaymentRequest) -> Duration {
    Duration::from_secs(payment.time_limit.min(MAX_TIME_LIMIT).as_secs().max(1))
}

/// How long the answer of an attempt to pay is waited for.
pub(super) fn answered_within(payment: &PaymentRequest) -> Duration {
    tried_for(payment) + GRACE
}

/// Pays by `attempt`, which asks the wallet once. A failure is believed only where
/// the wallet, asked again, neither has paid nor is about to: another attempt of
/// the same payment may have been in the way. Where it leaves doubt, the
/// wallet is asked too, and the doubt stays unless the payment was made.
pub(super) async fn settle(
    wallet: &impl Wallet,
    payment: &PaymentRequest,
    attempt: impl Future<Output = Result<Payment, PayError>>,
) -> Result<Payment, PayError> {
    let deadline = Instant::now() + answered_within(payment);
    let sent = match check(wallet, payment) {
        Ok(()) => attempt.await,
        Err(error) => Err(error),
    };
    let error = match sent {
        Err(error) if error.kind() != PayErrorKind::NotSent => error,
        sent => return sent,
    };
    let mut pause = MIN_PAUSE;
    loop {
        match wallet.status(payment.payment_hash).await {
            Ok(PaymentStatus::Paid(payment)) => return Ok(payment),
            Ok(PaymentStatus::PaidNoPreimage) => return Err(no_preimage()),
            Ok(PaymentStatus::InFlight) if Instant::now() < deadline => {
                sleep(pause).await;
                pause = (pause * 2).min(MAX_PAUSE);
            }
            Ok(PaymentStatus::InFlight) => return Err(uncertain("payment is on its way still")),
            // It cannot say that it did not pay after all.
            Err(unknown) if error.is_definite() => return Err(uncertain(unknown)),
            Ok(PaymentStatus::Unknown | PaymentStatus::Failed) | Err(_) => return Err(error),
        }
    }
}

/// Whether the invoice is the one that was named, and can be paid at all.
fn check(wallet: &impl Wallet, payment: &PaymentRequest) -> Result<(), PayError> {
    let not_sent = |what: &'static str| Err(PayError::new(PayErrorKind::NotSent, what));
    let Some(invoice) = bolt11::read(&payment.bolt11) else {
        return not_sent("invoice is no valid BOLT 11 text");
    };
    if !invoice.is_of(wallet.network()) {
        return not_sent("invoice is of another network than the wallet");
    }
    if invoice.payment_hash != payment.payment_hash {
        return not_sent("invoice has another payment hash than was named");
    }
    if invoice.amount_msat != Some(payment.amount_msat) {
        return not_sent("invoice has another amount than was named");
    }
    if invoice.expires_at() <= unix(SystemClock.now()) {
        // It may have been paid before.
        return Err(failed("invoice has expired"));
    }
    Ok(())
}

type Cause = Box<dyn std::error::Error + Send + Sync>;

pub(super) fn not_sent(cause: impl Into<Cause>) -> PayError {
    PayError::new(PayErrorKind::NotSent, cause)
}

pub(super) fn failed(cause: impl Into<Cause>) -> PayError {
    PayError::new(PayErrorKind::Failed, cause)
}

pub(super) fn uncertain(cause: impl Into<Cause>) -> PayError {
    PayError::new(PayErrorKind::Uncertain, cause)
}

pub(super) fn no_preimage() -> PayError {
    PayError::new(PayErrorKind::NoPreimage, "wallet shows no preimage that has the payment hash")
}

/// Of a request to pay that brought no answer: only where no connection came
/// about, nothing was sent.
pub(super) fn unanswered(error: BackendError) -> PayError {
    let is_unsent = error.kind() == BackendErrorKind::Connect;
    if is_unsent { not_sent(error) } else { uncertain(error) }
}

/// Of an answer that is an error, where nothing but its status tells. Few of
/// them say that nothing was done.
#[cfg(any(feature = "cln", feature = "lnbits", feature = "lnd", feature = "phoenixd"))]
pub(super) fn refused(answer: &Answer, error: BackendError) -> PayError {
    match (answer.status.as_u16(), error.kind()) {
        (_, BackendErrorKind::Auth) => not_sent(error),
        (400 | 422, _) => failed(error),
        _ => uncertain(error),
    }
}

/// A preimage as a wallet shows it: zeroed on drop.
#[derive(Deserialize)]
#[serde(from = "String")]
pub(super) struct Shown(Zeroizing<String>);

impl From<String> for Shown {
    fn from(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
}

/// A payment that the wallet says it made: with the preimage that it shows, if
/// that is the one.
pub(super) fn paid(shown: Option<&Shown>, payment_hash: PaymentHash, fee_msat: u64) -> PaymentStatus {
    let preimage = shown.and_then(|Shown(text)| Preimage::from_hex(text.as_bytes()).ok());
    match preimage.filter(|preimage| preimage.payment_hash() == payment_hash) {
        Some(preimage) => PaymentStatus::Paid(Payment::new(preimage, fee_msat)),
        None => PaymentStatus::PaidNoPreimage,
    }
}

/// As [`paid`], for who waits for the preimage.
pub(super) fn pay_outcome(status: PaymentStatus) -> Result<Payment, PayError> {
    match status {
        PaymentStatus::Paid(payment) => Ok(payment),
        PaymentStatus::PaidNoPreimage => Err(no_preimage()),
        PaymentStatus::Failed => Err(failed("wallet says that the payment failed")),
        PaymentStatus::InFlight | PaymentStatus::Unknown => {
            Err(uncertain("wallet says that the payment is on its way"))
        }
    }
}

/// An answer that is not what it should be.
pub(super) fn invalid(what: &'static str) -> BackendError {
    BackendError::new(BackendErrorKind::InvalidResponse, what)
}
