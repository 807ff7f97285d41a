//! A ledger over a `MemoryLedger` that does at each call what it is told.

#![allow(dead_code, unreachable_pub, missing_docs)]

use std::collections::HashMap;
use std::future::pending;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use l402::ledger::{
    Account, AccountId, LedgerError, OpenReservation, ReservationId, Reserve, Reserved, Revocations,
};
use l402::{Ledger, MemoryLedger, Revocation};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    Reserve,
    Commit,
    Release,
    Credit,
    Account,
    Revoke,
    Open,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Fails at once, with no effect.
    Error,
    /// Takes effect, and fails to say so.
    ErrorAfter,
    /// Fails after it was pending once.
    LateError,
    /// Never answers, with no effect.
    Hang,
    /// Takes effect, and never says so.
    HangAfter,
    /// Takes effect after 10 seconds, longer than anybody waits.
    Slow,
    /// Panics at the first poll.
    Panic,
    /// Panics after it was pending once.
    LatePanic,
}

impl Fault {
    pub const ALL: [Self; 8] = [
        Self::Error,
        Self::ErrorAfter,
        Self::LateError,
        Self::Hang,
        Self::HangAfter,
        Self::Slow,
        Self::Panic,
        Self::LatePanic,
    ];

    /// Whether the operation takes effect all the same.
    pub fn takes_effect(self) -> bool {
        matches!(self, Self::ErrorAfter | Self::HangAfter | Self::Slow)
    }
}

#[derive(Debug, Default)]
struct State {
    faults: HashMap<Op, Fault>,
    calls: Vec<(Op, Option<ReservationId>)>,
    finished: usize,
    /// Yields once before and once after the effect of every operation.
    yields: bool,
}

/// Clones share their memory and their faults.
#[derive(Clone, Debug, Default)]
pub struct FaultyLedger {
    memory: Arc<MemoryLedger>,
    state: Arc<Mutex<State>>,
}

impl FaultyLedger {
    pub fn new() -> Self {
        Self::default()
    }

    /// One that yields once before and once after its effect.
    pub fn yielding() -> Self {
        let ledger = Self::new();
        ledger.state.lock().unwrap().yields = true;
        ledger
    }

    pub fn set(&self, op: Op, fault: Option<Fault>) {
        let faults = &mut self.state.lock().unwrap().faults;
        match fault {
            Some(fault) => faults.insert(op, fault),
            None => faults.remove(&op),
        };
    }

    /// Every call so far that ends a reservation or makes one.
    pub fn calls(&self, op: Op) -> Vec<ReservationId> {
        let state = self.state.lock().unwrap();
        state.calls.iter().filter(|(called, _)| *called == op).filter_map(|(_, id)| *id).collect()
    }

    /// Whether every call so far has come to its end.
    pub fn is_idle(&self) -> bool {
        let state = self.state.lock().unwrap();
        state.finished == state.calls.len()
    }

    /// What stands in memory, whatever is broken.
    pub async fn open(&self) -> usize {
        self.memory.open_reservations().await.unwrap().len()
    }

    /// What stands in memory, whatever is broken.
    pub async fn used(&self, account: impl Into<AccountId>) -> u64 {
        self.memory.account(&account.into()).await.unwrap().map_or(0, |account| account.used)
    }

    async fn before(&self, op: Op, id: Option<ReservationId>) -> Result<(), LedgerError> {
        let (fault, yields) = {
            let mut state = self.state.lock().unwrap();
            state.calls.push((op, id));
            (state.faults.get(&op).copied(), state.yields)
        };
        if yields || matches!(fault, Some(Fault::LateError | Fault::LatePanic)) {
            tokio::task::yield_now().await;
        }
        match fault {
            Some(Fault::Error | Fault::LateError) => Err(LedgerError::new("store is down")),
            Some(Fault::Panic | Fault::LatePanic) => panic!("store is broken"),
            Some(Fault::Hang) => pending().await,
            Some(Fault::Slow) => {
                tokio::time::sleep(Duration::from_secs(10)).await;
                Ok(())
            }
            Some(Fault::ErrorAfter | Fault::HangAfter) | None => Ok(()),
        }
    }

    async fn after(&self, op: Op) -> Result<(), LedgerError> {
        let (fault, yields) = {
            let state = self.state.lock().unwrap();
            (state.faults.get(&op).copied(), state.yields)
        };
        if yields {
            tokio::task::yield_now().await;
        }
        self.state.lock().unwrap().finished += 1;
        match fault {
            Some(Fault::ErrorAfter) => Err(LedgerError::new("answer was lost")),
            Some(Fault::HangAfter) => pending().await,
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl Ledger for FaultyLedger {
    fn instance(&self) -> Option<[u8; 16]> {
        self.memory.instance()
    }

    fn revocations(&self) -> &Revocations {
        self.memory.revocations()
    }

    async fn reserve(&self, ask: &Reserve) -> Result<Reserved, LedgerError> {
        self.before(Op::Reserve, Some(ask.id)).await?;
        let reserved = self.memory.reserve(ask).await;
        self.after(Op::Reserve).await?;
        reserved
    }

    async fn commit(&self, id: &ReservationId) -> Result<(), LedgerError> {
        self.before(Op::Commit, Some(*id)).await?;
        self.memory.commit(id).await?;
        self.after(Op::Commit).await
    }

    async fn release(&self, id: &ReservationId, now: u64) -> Result<(), LedgerError> {
        self.before(Op::Release, Some(*id)).await?;
        self.memory.release(id, now).await?;
        self.after(Op::Release).await
    }

    async fn credit(
        &self,
        account: &AccountId,
        units: u64,
        event_id: &str,
        expires_at: u64,
    ) -> Result<(), LedgerError> {
        self.before(Op::Credit, None).await?;
        self.memory.credit(account, units, event_id, expires_at).await?;
        self.after(Op::Credit).await
    }

    async fn account(&self, account: &AccountId) -> Result<Option<Account>, LedgerError> {
        self.before(Op::Account, None).await?;
        let row = self.memory.account(account).await;
        self.after(Op::Account).await?;
        row
    }

    async fn revoke(&self, revocation: &Revocation) -> Result<(), LedgerError> {
        self.before(Op::Revoke, None).await?;
        self.memory.revoke(revocation).await?;
        self.after(Op::Revoke).await
    }

    async fn open_reservations(&self) -> Result<Vec<OpenReservation>, LedgerError> {
        self.before(Op::Open, None).await?;
        let open = self.memory.open_reservations().await;
        self.after(Op::Open).await?;
        open
    }
}
