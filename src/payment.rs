//! Whether a token was paid for, where a preimage does not say so.
//!
//! The backend is asked once per token. That an invoice was settled is
//! remembered, as long as it is among the last 65,536; that it was not, for a
//! few seconds. Who asks about a token while another asks waits for the same
//! answer.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::answer::Refused;
use crate::backend::{self, BackendError, Capabilities, InvoiceState, PaymentBackend};
use crate::clock::{Clock, unix};
use crate::error::{Error, ErrorKind};
use crate::limit::{ClientId, Limits};
use crate::preimage::PaymentHash;
use crate::recent::Recent;
use crate::refusal::Refusal;
use crate::sync::timeout;

/// How long the backend may take to say what became of an invoice.
const LOOK_UP_TIME_LIMIT: Duration = Duration::from_secs(5);
/// How long an unpaid invoice is not asked about again, in seconds: a token
/// alone, and one whose holder has the preimage, which a payer may learn a
/// moment before the backend books the payment.
const UNPAID_FOR: u64 = 5;
const BOOKED_WITHIN: u64 = 1;
/// Most invoices that are asked about, or known to be unpaid, at once.
const MAX_ASKED: usize = 1024;

/// When the backend is asked.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Policy {
    /// Also about tokens that come with their preimage.
    pub(crate) strict: bool,
    /// Tokens that come without one are admitted if it says so.
    pub(crate) admit_settled: bool,
}

impl Policy {
    /// The policy for a backend that can do this, or what is wrong with it.
    pub(crate) fn for_backend(self, capabilities: &Capabilities) -> Result<Self, Error> {
        let strict = self.strict || !capabilities.preimage_proves_payment();
        if (strict || self.admit_settled) && capabilities.look_up().is_none() {
            let why = if capabilities.preimage_proves_payment() {
                "the issuer is to ask the backend what was paid, and it cannot be asked"
            } else {
                "a preimage of this backend proves no payment, and it cannot be asked what was paid"
            };
            return Err(Error::new(
                ErrorKind::Backend,
                format!("{why}: use a backend with `Capabilities::with_look_up`"),
            ));
        }
        Ok(Self { strict, ..self })
    }
}

/// What is known of payments.
pub(crate) struct Payments {
    pub(crate) policy: Policy,
    settled: Mutex<Recent>,
    asked: Mutex<HashMap<PaymentHash, Arc<Asked>>>,
}

/// What the backend said last of an invoice, and when.
/// Whoever asks it holds the lock.
type Asked = tokio::sync::Mutex<Option<(InvoiceState, u64)>>;

/// A payment that the backend has to be asked about.
#[derive(Debug)]
pub(crate) struct Unconfirmed {
    pub(crate) payment_hash: PaymentHash,
    pub(crate) handle: Option<String>,
    pub(crate) has_preimage: bool,
    /// Who shows a token without its preimage, as anybody can.
    pub(crate) client: Option<ClientId>,
}

impl Payments {
    pub(crate) fn new(policy: Policy) -> Self {
        Self { policy, settled: Mutex::default(), asked: Mutex::default() }
    }

    /// What the backend has to be asked about before this token is admitted.
    pub(crate) fn unconfirmed(
        &self,
        payment_hash: PaymentHash,
        handle: Option<&str>,
        has_preimage: bool,
        client: impl FnOnce() -> Option<ClientId>,
    ) -> Option<Unconfirmed> {
        let must_ask = self.policy.strict || !has_preimage;
        (must_ask && !self.settled().contains(payment_hash)).then(|| Unconfirmed {
            payment_hash,
            handle: handle.map(str::to_owned),
            has_preimage,
            client: if has_preimage { None } else { client() },
        })
    }

    /// Asks the backend.
    ///
    /// # Cancel safety
    /// Dropped, the next in line asks.
    pub(crate) async fn confirm(
        &self,
        payment: &Unconfirmed,
        backend: &dyn PaymentBackend,
        clock: &dyn Clock,
        limits: &Limits,
    ) -> Result<(), Refused> {
        let hash = payment.payment_hash;
        let asked = self.asked(payment, unix(clock.now())).ok_or(Refusal::Busy)?;
        let mut last =
            timeout(LOOK_UP_TIME_LIMIT, asked.lock()).await.map_err(|_| BackendError::timeout())?;
        if self.settled().contains(hash) {
            return Ok(());
        }
        let unpaid_for = if payment.has_preimage { BOOKED_WITHIN } else { UNPAID_FOR };
        let known = last.filter(|(_, at)| unix(clock.now()) < at.saturating_add(unpaid_for));
        let state = if let Some((state, _)) = known {
            state
        } else {
            // Anybody has a token without a preimage for the asking.
            let _place = if payment.has_preimage {
                None
            } else {
                limits.take_look_up(payment.client, clock.now())?;
                Some(limits.enter().ok_or(Refusal::Busy)?)
            };
            let look_up = || backend.look_up(hash, payment.handle.as_deref());
            let state = backend::call(LOOK_UP_TIME_LIMIT, look_up).await?;
            *last = Some((state, unix(clock.now())));
            state
        };
        match state {
            InvoiceState::Settled => {
                self.remember(hash);
                self.asked_now().remove(&hash);
                Ok(())
            }
            InvoiceState::Open => {
                Err(Refusal::PaymentPending { retry_after: Duration::from_secs(unpaid_for) }.into())
            }
            InvoiceState::Closed | InvoiceState::Unknown => Err(Refusal::NotPaid.into()),
        }
    }

    /// From now on the payment needs no asking.
    pub(crate) fn remember(&self, hash: PaymentHash) {
        self.settled().insert(hash);
    }

    /// The place of this invoice among those that are asked about; `None`
    /// where all are taken.
    fn asked(&self, payment: &Unconfirmed, now: u64) -> Option<Arc<Asked>> {
        let hash = payment.payment_hash;
        // Half of the places are for those who show a preimage.
        let max = if payment.has_preimage { MAX_ASKED } else { MAX_ASKED / 2 };
        let mut asked = self.asked_now();
        if asked.len() >= max && !asked.contains_key(&hash) {
            asked.retain(|_, asked| {
                Arc::strong_count(asked) > 1
                    || asked
                        .try_lock()
                        .is_ok_and(|last| last.is_some_and(|(_, at)| now < at.saturating_add(UNPAID_FOR)))
            });
            if asked.len() >= max {
                return None;
            }
        }
        Some(asked.entry(hash).or_default().clone())
    }

    fn asked_now(&self) -> MutexGuard<'_, HashMap<PaymentHash, Arc<Asked>>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn settled(&self) -> MutexGuard<'_, Recent> {
        self.settled.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Payments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Payments").field("policy", &self.policy).finish_non_exhaustive()
    }
}
