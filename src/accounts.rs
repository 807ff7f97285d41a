//! Whether an account was paid for. The ledger says so, and until when: a credit
//! is what tells that a payment settled, whatever the method.
//!
//! The ledger is asked once per account. What it said is remembered, as long as
//! the account is among the last 65,536; that it knows of no payment, for a few
//! seconds. Of those who ask about the same account one asks, and the others wait.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::answer::Refused;
use crate::clock::unix;
use crate::issuer::IssuerInner;
use crate::ledger::{AccountId, LedgerError};
use crate::limit::ClientId;
use crate::refusal::Refusal;
use crate::sync::timeout;

/// How many paid accounts are remembered at least, and twice this at most: of 40
/// bytes each, under 12 MiB with the tables.
const GENERATION: usize = 65_536;
/// How long an account without a payment is not asked about again, in seconds.
const UNPAID_FOR: u64 = 5;
/// Most accounts that are known to be unpaid.
const MAX_UNPAID: usize = 1024;
/// Accounts of one lane are asked about one after another.
const LANES: usize = 64;
/// How long somebody may wait for its turn.
const TIME_LIMIT: Duration = Duration::from_secs(5);

/// What is known of accounts.
pub(crate) struct Accounts {
    /// How long a payment may take to arrive, in seconds.
    pending_for: u64,
    paid: Mutex<Paid>,
    /// Accounts that the ledger did not know, and when it said so.
    unpaid: Mutex<HashMap<AccountId, u64>>,
    lanes: Vec<tokio::sync::Mutex<()>>,
}

/// Until when accounts are paid for, in two generations.
#[derive(Default)]
struct Paid {
    young: HashMap<AccountId, u64>,
    old: HashMap<AccountId, u64>,
}

/// An account that the ledger has to be asked about.
#[derive(Debug)]
pub(crate) struct Unpaid {
    pub(crate) account: AccountId,
    /// The unix second at which its token was made.
    pub(crate) asked_at: u64,
    /// Who asks: anybody has the token of an account for the asking.
    pub(crate) client: Option<ClientId>,
}

impl Accounts {
    pub(crate) fn new(pending_for: u64) -> Self {
        let lanes = (0..LANES).map(|_| tokio::sync::Mutex::default()).collect();
        Self { pending_for, paid: Mutex::default(), unpaid: Mutex::default(), lanes }
    }

    /// The unix second until which the account is paid for; `None` where that is
    /// not known, or past.
    pub(crate) fn paid_until(&self, account: AccountId, now: u64) -> Option<u64> {
        let paid = self.paid();
        let until = paid.young.get(&account).or_else(|| paid.old.get(&account)).copied();
        until.filter(|until| now < *until)
    }

    /// Asks the ledger about the account of a token, under the limits of
    /// challenges.
    ///
    /// # Cancel safety
    /// Dropped, the next in line asks.
    pub(crate) async fn confirm(&self, unpaid: &Unpaid, issuer: &IssuerInner) -> Result<u64, Refused> {
        let limited = || {
            issuer.limits.take_look_up(unpaid.client, issuer.clock.now())?;
            issuer.limits.enter().ok_or(Refusal::Busy)
        };
        if let Some(until) = self.ask(unpaid.account, issuer, 0, limited).await? {
            return Ok(until);
        }
        let is_pending = unix(issuer.clock.now()) < unpaid.asked_at.saturating_add(self.pending_for);
        Err(if is_pending {
            Refusal::PaymentPending { retry_after: Duration::from_secs(UNPAID_FOR) }.into()
        } else {
            Refusal::NotPaid.into()
        })
    }

    /// Asks the ledger until when the account is paid for, if `limited` gives a
    /// place to do so. What is known is enough if it is `at_least` this.
    pub(crate) async fn ask<P>(
        &self,
        account: AccountId,
        issuer: &IssuerInner,
        at_least: u64,
        limited: impl FnOnce() -> Result<P, Refusal>,
    ) -> Result<Option<u64>, Refused> {
        let now = || unix(issuer.clock.now());
        let lane = &self.lanes[usize::from(account.as_bytes()[0]) % LANES];
        let too_late = |elapsed| Refused::because(Refusal::LedgerUnavailable, LedgerError::new(elapsed));
        let _turn = timeout(TIME_LIMIT, lane.lock()).await.map_err(too_late)?;
        if let Some(until) = self.paid_until(account, now()).filter(|until| at_least <= *until) {
            return Ok(Some(until));
        }
        if self.unpaid().get(&account).is_some_and(|at| now() < at.saturating_add(UNPAID_FOR)) {
            return Ok(None);
        }
        let Some(meter) = &issuer.meter else { return Ok(None) };
        let _place = limited()?;
        let ledger = meter.ledger.clone();
        let row = meter.run_to_end(async move { ledger.account(&account).await }).await;
        let row = row.map_err(|error| Refused::because(Refusal::LedgerUnavailable, error))?;
        // A row without a unit is none that was credited.
        let until = row.filter(|row| row.limit > 0 && now() < row.expires_at).map(|row| row.expires_at);
        if let Some(until) = until {
            self.remember(account, until);
        }
        let until = until.filter(|until| at_least <= *until);
        if until.is_none() {
            self.is_unpaid(account, now());
        }
        Ok(until)
    }

    /// The account is paid for until this unix second, and needs no asking.
    pub(crate) fn remember(&self, account: AccountId, until: u64) {
        self.unpaid().remove(&account);
        let mut paid = self.paid();
        let until = until.max(paid.young.get(&account).copied().unwrap_or_default());
        paid.young.insert(account, until);
        if paid.young.len() >= GENERATION {
            paid.old = std::mem::take(&mut paid.young);
        }
    }

    fn is_unpaid(&self, account: AccountId, now: u64) {
        let mut unpaid = self.unpaid();
        if unpaid.len() >= MAX_UNPAID {
            unpaid.retain(|_, at| now < at.saturating_add(UNPAID_FOR));
        }
        if unpaid.len() < MAX_UNPAID {
            unpaid.insert(account, now);
        }
    }

    fn paid(&self) -> MutexGuard<'_, Paid> {
        self.paid.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unpaid(&self) -> MutexGuard<'_, HashMap<AccountId, u64>> {
        self.unpaid.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Accounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Accounts").field("pending_for", &self.pending_for).finish_non_exhaustive()
    }
}
