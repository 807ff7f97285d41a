//! What this process knows of tokens, so that a request with a held one asks
//! nobody: which token opens which path, who buys, and which tokens are in use.

use std::borrow::Borrow;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::hash::Hash;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::HeaderValue;
use tokio::sync::OwnedMutexGuard;

use crate::preimage::PaymentHash;

use super::origin::Origin;
use super::store::{Purchase, PurchaseState};
use super::token;

/// How much each table remembers at least; twice that at most.
const GENERATION: usize = 2048;
/// Longest path and scope that are remembered, in bytes. Of a longer one the
/// store is asked.
const MAX_KEY: usize = 4096;
/// From how many origins on those are dropped where nobody buys.
const MAX_IDLE_FLIGHTS: usize = 256;

/// A token that is paid.
pub(super) struct Held {
    pub(super) payment_hash: PaymentHash,
    pub(super) scope: String,
    pub(super) is_single_use: bool,
    pub(super) credential: HeaderValue,
    valid_until: Option<u64>,
}

impl Held {
    /// The token of a purchase; `None` where it is not held.
    pub(super) fn of(purchase: &Purchase) -> Option<Self> {
        let PurchaseState::Held { preimage, .. } = &purchase.state else { return None };
        Some(Self {
            payment_hash: purchase.payment_hash,
            scope: purchase.scope.clone(),
            is_single_use: purchase.is_single_use,
            credential: token::credential(&purchase.token, preimage)?,
            valid_until: purchase.valid_until,
        })
    }

    /// Whether it is worth being sent, at this moment in unix seconds.
    pub(super) fn is_valid(&self, now: impl FnOnce() -> u64) -> bool {
        self.valid_until.is_none_or(|until| now() < until)
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held").field("payment_hash", &self.payment_hash).finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
pub(super) struct Known {
    tokens: Mutex<Tokens>,
    flights: Mutex<HashMap<Origin, Arc<tokio::sync::Mutex<()>>>>,
    claimed: Mutex<HashSet<PaymentHash>>,
}

#[derive(Debug, Default)]
struct Tokens {
    /// By origin and path: the key of the scope that opens it.
    paths: Table<String, Arc<str>>,
    /// By origin and scope.
    scopes: Table<Arc<str>, Arc<Held>>,
    /// Whose purchases were looked up in the store.
    loaded: Table<Origin, ()>,
}

impl Known {
    /// The token that opened this path before, and whether the store was ever
    /// asked for this origin.
    pub(super) fn token(&self, origin: &Origin, path: &str) -> (Option<Arc<Held>>, bool) {
        let mut tokens = lock(&self.tokens);
        let tokens = &mut *tokens;
        let scope = tokens.paths.get(&*key(origin, "", path));
        let held = scope.and_then(|scope| tokens.scopes.get(&*scope));
        let is_loaded = held.is_some() || tokens.loaded.get(origin).is_some();
        (held, is_loaded)
    }

    /// Remembers that this token opens this path.
    pub(super) fn learn(&self, origin: &Origin, path: &str, held: &Arc<Held>) {
        let (path, scope) = (key(origin, "", path), key(origin, "\n", &held.scope));
        if path.len() > MAX_KEY || scope.len() > MAX_KEY {
            return;
        }
        let scope: Arc<str> = scope.into();
        let mut tokens = lock(&self.tokens);
        tokens.paths.insert(path, scope.clone());
        tokens.scopes.insert(scope, held.clone());
    }

    /// Remembers what the store holds of an origin, the latest first.
    pub(super) fn load(&self, origin: &Origin, purchases: &[Purchase]) {
        for purchase in purchases.iter().rev().filter(|purchase| !purchase.is_single_use) {
            if let Some(held) = Held::of(purchase) {
                self.learn(origin, &purchase.path, &Arc::new(held));
            }
        }
        lock(&self.tokens).loaded.insert(origin.clone(), ());
    }

    /// Forgets a token that is gone.
    pub(super) fn forget(&self, origin: &Origin, held: &Held) {
        let scope = key(origin, "\n", &held.scope);
        let mut tokens = lock(&self.tokens);
        if tokens.scopes.get(&*scope).is_some_and(|known| known.payment_hash == held.payment_hash) {
            tokens.scopes.remove(&*scope);
        }
    }

    /// Waits until nobody else buys at this origin.
    pub(super) async fn flight(&self, origin: &Origin) -> OwnedMutexGuard<()> {
        let flight = {
            let mut flights = lock(&self.flights);
            if flights.len() >= MAX_IDLE_FLIGHTS {
                flights.retain(|_, flight| Arc::strong_count(flight) > 1);
            }
            flights.entry(origin.clone()).or_default().clone()
        };
        flight.lock_owned().await
    }

    /// Takes a token that is good for one request; `None` where another request
    /// has it.
    pub(super) fn claim(self: &Arc<Self>, payment_hash: PaymentHash) -> Option<Claim> {
        let is_free = lock(&self.claimed).insert(payment_hash);
        is_free.then(|| Claim { known: self.clone(), payment_hash })
    }
}

/// A token that one request alone may use, until this is dropped.
#[derive(Debug)]
pub(super) struct Claim {
    known: Arc<Known>,
    payment_hash: PaymentHash,
}

impl Drop for Claim {
    fn drop(&mut self) {
        lock(&self.known.claimed).remove(&self.payment_hash);
    }
}

fn key(origin: &Origin, separator: &str, rest: &str) -> String {
    [origin.as_str(), separator, rest].concat()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A table of bounded size, in two generations: what is used stays.
#[derive(Debug)]
struct Table<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
}

impl<K: Hash + Eq, V: Clone> Table<K, V> {
    fn get<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        if let Some(value) = self.young.get(key) {
            return Some(value.clone());
        }
        let (key, value) = self.old.remove_entry(key)?;
        self.insert(key, value.clone());
        Some(value)
    }

    fn insert(&mut self, key: K, value: V) {
        if self.young.len() >= GENERATION && !self.young.contains_key(&key) {
            self.old = mem::take(&mut self.young);
        }
        self.old.remove(&key);
        self.young.insert(key, value);
    }

    fn remove<Q: Hash + Eq + ?Sized>(&mut self, key: &Q)
    where
        K: Borrow<Q>,
    {
        self.young.remove(key);
        self.old.remove(key);
    }
}

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        Self { young: HashMap::new(), old: HashMap::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_stays_small_and_keeps_what_is_used() {
        let mut table = Table::default();
        table.insert(usize::MAX, ());
        for n in 0..5 * GENERATION {
            table.insert(n, ());
            assert!(table.get(&n).is_some());
            assert!(table.get(&usize::MAX).is_some(), "{n}");
            assert!(table.young.len() + table.old.len() <= 2 * GENERATION + 1);
        }
        assert!(table.get(&0).is_none());
        table.remove(&usize::MAX);
        assert!(table.get(&usize::MAX).is_none());
    }

    #[tokio::test]
    async fn flights_of_origins_where_nobody_buys_are_dropped() {
        let known = Known::default();
        let origin = |n: usize| Origin::parse(&format!("https://{n}.example")).unwrap();
        let buying = known.flight(&origin(0)).await;
        for n in 1..4 * MAX_IDLE_FLIGHTS {
            drop(known.flight(&origin(n)).await);
            assert!(lock(&known.flights).len() <= MAX_IDLE_FLIGHTS);
        }
        assert!(lock(&known.flights).contains_key(&origin(0)));
        drop(buying);
    }
}
