//! Invoices that are ready before anybody asks.
//!
//! A pool is filled by those who use it: each challenge that asks for one has
//! at most two made in its place, in tasks of their own, until the pool is
//! full. An idle server asks for nothing, and what it had ready grows old and
//! is thrown away.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::event::{Event, Events};
use crate::invoice::CheckedInvoice;
use crate::macaroon::TokenId;

/// Most invoices that a challenge has made in the place of the one it takes.
const REFILLS: usize = 2;

/// Ready invoices of one offer.
pub(crate) struct Pool {
    /// The id of the offer.
    pub(crate) offer: Arc<str>,
    size: usize,
    state: Mutex<State>,
    level: Level,
}

#[derive(Default)]
struct State {
    ready: VecDeque<Ready>,
    /// How many are being asked for.
    asked: usize,
    /// The unix second before which the backend is left alone.
    not_before: u64,
}

/// An invoice, and the token that was named when it was asked for.
#[derive(Debug)]
pub(crate) struct Ready {
    pub(crate) token_id: TokenId,
    pub(crate) amount_msat: u64,
    pub(crate) invoice: CheckedInvoice,
}

impl Ready {
    /// Whether as much of its life is left as is gone.
    fn is_young(&self, now: u64) -> bool {
        let asked_at = self.token_id.issued_at();
        self.invoice.expires_at.saturating_sub(now) >= now.saturating_sub(asked_at)
    }
}

impl Pool {
    /// A pool of so many, none of them ready yet.
    pub(crate) fn new(offer: Arc<str>, size: usize, level: Level) -> Self {
        Self { offer, size, state: Mutex::default(), level }
    }

    /// Takes the oldest invoice for this amount whose token is like this one:
    /// of the same key, with as many caveats. Throws away those that are too old,
    /// or of another amount or key, or that `is_revoked` names.
    pub(crate) fn take(
        &self,
        amount_msat: u64,
        like: TokenId,
        now: u64,
        is_revoked: impl Fn(&Ready) -> bool,
    ) -> Option<Ready> {
        self.change(|ready| {
            ready.retain(|ready| {
                ready.amount_msat == amount_msat
                    && ready.token_id.key_id() == like.key_id()
                    && ready.is_young(now)
                    && !is_revoked(ready)
            });
            let fits = ready.iter().position(|ready| ready.token_id.minted() == like.minted())?;
            ready.remove(fits)
        })
    }

    /// Changes what is ready, and tells of it once the lock is gone.
    fn change<T>(&self, change: impl FnOnce(&mut VecDeque<Ready>) -> T) -> T {
        let mut state = self.state();
        let before = state.ready.len();
        let changed = change(&mut state.ready);
        let after = state.ready.len();
        drop(state);
        self.level.tell(before, after);
        changed
    }

    /// The invoices to ask for now, each to be put in or given up.
    pub(crate) fn refill(self: &Arc<Self>, now: u64) -> impl Iterator<Item = Refill> + use<> {
        let mut state = self.state();
        let missing = self.size.saturating_sub(state.ready.len() + state.asked).min(REFILLS);
        let missing = if now < state.not_before { 0 } else { missing };
        state.asked += missing;
        let pool = self.clone();
        (0..missing).map(move |_| Refill(pool.clone())).collect::<Vec<_>>().into_iter()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("size", &self.size).finish_non_exhaustive()
    }
}

/// What was ready goes with the gate.
impl Drop for Pool {
    fn drop(&mut self) {
        self.change(VecDeque::clear);
    }
}

/// Where it is told how many are ready.
pub(crate) struct Level {
    events: Events,
    service: Arc<str>,
    offer: Arc<str>,
}

impl Level {
    pub(crate) fn new(events: &Events, service: &Arc<str>, offer: &Arc<str>) -> Self {
        Self { events: events.clone(), service: service.clone(), offer: offer.clone() }
    }

    fn tell(&self, before: usize, ready: usize) {
        if before != ready {
            let change = i64::try_from(ready).unwrap_or(i64::MAX) - i64::try_from(before).unwrap_or(i64::MAX);
            let Self { service, offer, .. } = self;
            self.events.tell(|| Event::PoolLevel { service, offer, ready, change });
        }
    }
}

/// An invoice that is being asked for. Dropped, it is given up.
#[derive(Debug)]
pub(crate) struct Refill(Arc<Pool>);

impl Refill {
    /// Puts the invoice in.
    pub(crate) fn put(self, ready: Ready) {
        self.0.change(|all| all.push_back(ready));
    }

    /// The backend failed: it is left alone until this unix second.
    pub(crate) fn fail(self, until: u64) {
        self.0.state().not_before = until;
    }
}

impl Drop for Refill {
    fn drop(&mut self) {
        self.0.state().asked -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_900_000_000;

    fn level() -> Level {
        Level::new(&Events::default(), &"svc".into(), &"default".into())
    }

    fn id(key: u8, issued_at: u64, minted: u8) -> TokenId {
        TokenId::new([key; 4], issued_at, minted, [0; 21])
    }

    fn ready(token_id: TokenId, n: u8) -> Ready {
        let invoice = CheckedInvoice {
            bolt11: String::new(),
            payment_hash: [n; 32].into(),
            expires_at: token_id.issued_at() + 300,
            handle: None,
        };
        Ready { token_id, amount_msat: 1_000, invoice }
    }

    /// A pool that was filled.
    fn filled(ready: impl IntoIterator<Item = Ready>) -> Arc<Pool> {
        let pool = Arc::new(Pool::new("default".into(), 100, level()));
        for ready in ready {
            pool.refill(NOW).next().unwrap().put(ready);
        }
        assert_eq!(pool.state().asked, 0);
        pool
    }

    #[test]
    fn an_invoice_is_handed_out_once_the_oldest_first() {
        let pool = filled((0..5).map(|n| ready(id(1, NOW, 4), n)));
        for n in 0..5 {
            let taken = pool.take(1_000, id(1, NOW, 4), NOW, |_| false).unwrap();
            assert_eq!(taken.invoice.payment_hash, [n; 32].into());
        }
        assert!(pool.take(1_000, id(1, NOW, 4), NOW, |_| false).is_none());
    }

    #[test]
    fn what_cannot_be_sold_any_more_is_thrown_away() {
        for (name, now, amount, key, revoked, kept) in [
            ("fresh", NOW, 1_000, 1, false, true),
            ("half its life left", NOW + 150, 1_000, 1, false, true),
            ("less", NOW + 151, 1_000, 1, false, false),
            ("expired", NOW + 1_000, 1_000, 1, false, false),
            ("another price", NOW, 1_001, 1, false, false),
            ("another key", NOW, 1_000, 2, false, false),
            ("revoked", NOW, 1_000, 1, true, false),
        ] {
            let pool = filled([ready(id(1, NOW, 4), 1)]);
            assert_eq!(pool.take(amount, id(key, now, 4), now, |_| revoked).is_some(), kept, "{name}");
            assert_eq!(pool.state().ready.len(), 0, "{name}");
        }
        // For a request that is bound to something else it waits for the next.
        let pool = filled([ready(id(1, NOW, 4), 1)]);
        assert!(pool.take(1_000, id(1, NOW, 5), NOW, |_| false).is_none());
        assert!(pool.take(1_000, id(1, NOW, 4), NOW, |_| false).is_some());
    }

    #[test]
    fn no_more_are_asked_for_than_are_missing_and_two_at_once() {
        let pool = Arc::new(Pool::new("default".into(), 5, level()));
        let mut asked = Vec::new();
        for expected in [2, 4, 5, 5, 5] {
            asked.extend(pool.refill(NOW));
            assert_eq!(asked.len(), expected);
        }
        asked.pop().unwrap().put(ready(id(1, NOW, 4), 1));
        assert_eq!(pool.refill(NOW).count(), 0, "four are asked for, one is ready");
        drop(asked);
        assert_eq!(pool.state().asked, 0);
        assert_eq!(pool.refill(NOW).count(), 2, "those were given up");
    }

    #[test]
    fn after_a_failure_the_backend_is_left_alone_for_a_while() {
        let pool = Arc::new(Pool::new("default".into(), 5, level()));
        pool.refill(NOW).next().unwrap().fail(NOW + 5);
        assert_eq!(pool.refill(NOW + 4).count(), 0);
        assert_eq!(pool.refill(NOW + 5).count(), 2);
    }
}
