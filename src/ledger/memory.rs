//! The ledger of one process.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;

use async_trait::async_trait;

use super::{
    Account, AccountId, LEASE, Ledger, LedgerError, OpenReservation, ReservationId, Reserve, Reserved,
    Revocation, Revocations, release_cap,
};
use crate::entropy::{SystemEntropy, random};
use crate::sync::{Mutex, MutexGuard, PoisonError};

const SHARDS: usize = 64;
/// How long a row outlives its token, in seconds.
const MARGIN: u64 = 60;

/// Counts in memory. It forgets everything when the process ends, and the
/// metered tokens that it backs end with it: their holders are answered 402,
/// with uses left that they paid for. No other process knows its counts, so a
/// second replica does not honour its tokens either. Passes live on, those that
/// were revoked among them. For a server that restarts or has replicas, count
/// in a [`SqliteLedger`](crate::SqliteLedger) or another ledger that lasts.
///
/// Memory: about 500 bytes for each metered token in use, until it expires.
pub struct MemoryLedger {
    instance: [u8; 16],
    shards: Vec<Mutex<Shard>>,
    revocations: Revocations,
}

#[derive(Default)]
struct Shard {
    rows: HashMap<AccountId, Row>,
    /// Accounts by the second at which their row may go.
    expiries: BTreeMap<u64, Vec<AccountId>>,
    /// Rows of tokens that expired up to here may be gone.
    purged_until: u64,
}

#[derive(Default)]
struct Row {
    limit: u64,
    credited: u64,
    used: u64,
    expires_at: u64,
    released: u64,
    open: Vec<Open>,
    tombstones: Vec<[u8; 16]>,
    events: HashSet<String>,
}

struct Open {
    nonce: [u8; 16],
    units: u64,
    lease_until: u64,
}

impl MemoryLedger {
    /// An empty ledger.
    pub fn new() -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { instance: random(&SystemEntropy), shards, revocations: Revocations::new() }
    }

    fn shard(&self, account: &AccountId) -> MutexGuard<'_, Shard> {
        // Payment hashes are hashes: their first byte spreads evenly.
        let shard = &self.shards[usize::from(account.0[0]) % SHARDS];
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for MemoryLedger {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryLedger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryLedger").finish_non_exhaustive()
    }
}

impl Shard {
    /// The row of an account, which stays until this second at least.
    fn row(&mut self, account: AccountId, expires_at: u64) -> &mut Row {
        let row = self.rows.entry(account).or_default();
        if row.expires_at < expires_at {
            row.expires_at = expires_at;
            self.expiries.entry(expires_at).or_default().push(account);
        }
        row
    }

    /// Drops the rows whose token expired [`MARGIN`] ago.
    fn purge(&mut self, now: u64) {
        let until = now.saturating_sub(MARGIN);
        while let Some(entry) = self.expiries.first_entry() {
            if *entry.key() > until {
                break;
            }
            let (second, accounts) = entry.remove_entry();
            for account in accounts {
                if self.rows.get(&account).is_some_and(|row| row.expires_at == second) {
                    self.rows.remove(&account);
                }
            }
            self.purged_until = self.purged_until.max(second);
        }
    }
}

impl Row {
    fn reserve(&mut self, ask: &Reserve) -> Reserved {
        let nonce = *ask.id.nonce();
        self.limit = self.limit.max(ask.limit);
        let sold = self.limit.saturating_add(self.credited).min(ask.ceiling);
        if self.tombstones.contains(&nonce) {
            return Reserved::Released;
        }
        if !self.open.iter().any(|open| open.nonce == nonce) {
            if ask.units > sold.saturating_sub(self.used) {
                return Reserved::UsedUp;
            }
            self.used += ask.units;
            let lease_until = ask.now.saturating_add(LEASE.as_secs());
            self.open.push(Open { nonce, units: ask.units, lease_until });
        }
        Reserved::Open { remaining: sold.saturating_sub(self.used) }
    }

    fn release(&mut self, nonce: [u8; 16], now: u64) {
        let Some(at) = self.open.iter().position(|open| open.nonce == nonce) else {
            if !self.tombstones.contains(&nonce) {
                self.tombstones.push(nonce);
            }
            return;
        };
        if self.open[at].lease_until > now {
            let open = self.open.swap_remove(at);
            if self.released < release_cap(self.limit.saturating_add(self.credited)) {
                self.released = self.released.saturating_add(open.units);
                self.used -= open.units;
            }
        }
    }
}

#[async_trait]
impl Ledger for MemoryLedger {
    fn instance(&self) -> Option<[u8; 16]> {
        Some(self.instance)
    }

    fn revocations(&self) -> &Revocations {
        &self.revocations
    }

    async fn reserve(&self, ask: &Reserve) -> Result<Reserved, LedgerError> {
        let mut shard = self.shard(&ask.id.account());
        shard.purge(ask.now);
        if ask.expires_at <= shard.purged_until {
            return Ok(Reserved::Expired);
        }
        Ok(shard.row(ask.id.account(), ask.expires_at).reserve(ask))
    }

    async fn commit(&self, id: &ReservationId) -> Result<(), LedgerError> {
        if let Some(row) = self.shard(&id.account()).rows.get_mut(&id.account()) {
            row.open.retain(|open| open.nonce != *id.nonce());
        }
        Ok(())
    }

    async fn release(&self, id: &ReservationId, now: u64) -> Result<(), LedgerError> {
        let mut shard = self.shard(&id.account());
        // Where the reserve has not come yet, the row waits for it.
        shard.row(id.account(), now.saturating_add(LEASE.as_secs())).release(*id.nonce(), now);
        Ok(())
    }

    async fn credit(
        &self,
        account: &AccountId,
        units: u64,
        event_id: &str,
        expires_at: u64,
    ) -> Result<(), LedgerError> {
        let mut shard = self.shard(account);
        let row = shard.row(*account, expires_at);
        if row.events.insert(event_id.to_owned()) {
            row.credited = row.credited.saturating_add(units);
        }
        Ok(())
    }

    async fn account(&self, account: &AccountId) -> Result<Option<Account>, LedgerError> {
        Ok(self.shard(account).rows.get(account).map(|row| Account {
            limit: row.limit.saturating_add(row.credited),
            used: row.used,
            expires_at: row.expires_at,
        }))
    }

    async fn revoke(&self, revocation: &Revocation) -> Result<(), LedgerError> {
        self.revocations.add(revocation);
        Ok(())
    }

    async fn open_reservations(&self) -> Result<Vec<OpenReservation>, LedgerError> {
        let mut all = Vec::new();
        for shard in &self.shards {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            for (account, row) in &shard.rows {
                all.extend(row.open.iter().map(|open| OpenReservation {
                    id: ReservationId::new(*account, open.nonce),
                    units: open.units,
                    lease_until: open.lease_until,
                }));
            }
        }
        Ok(all)
    }
}
