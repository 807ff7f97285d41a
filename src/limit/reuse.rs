//! Challenges that are pending, to be answered again to the same client.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use http::request::Parts;
use sha2::{Digest, Sha256};

use super::ClientFn;
use crate::backend::InvoiceRequest;
use crate::panics::unless_panics;
use crate::preimage::PaymentHash;
use crate::sale::Sold;

/// Longest time for which a challenge is answered again, in seconds.
const MAX_SECONDS: u64 = 60;
/// Most challenges that are pending at once. Each takes 4 KiB or less, or 7
/// where token and invoice are as long as they may be: 7 MiB at most.
const MAX_PENDING: usize = 1024;

/// Whose challenge it is, and what it sells: a hash of all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct PendingKey([u8; 32]);

/// The challenges that clients may be answered again.
pub(crate) struct Reuse {
    client: ClientFn,
    pending: Mutex<Pending>,
}

#[derive(Default)]
struct Pending {
    by_key: HashMap<PendingKey, (Sold, u64)>,
    by_hash: HashMap<PaymentHash, PendingKey>,
}

impl Reuse {
    pub(crate) fn new(client: ClientFn) -> Self {
        Self { client, pending: Mutex::default() }
    }

    /// The key of this client and order; `None` where the client is not known.
    /// `caveats` are those of the token but for its expiry: the service, the
    /// offer, what it opens and what it is bound to.
    pub(crate) fn key(&self, head: &Parts, ask: &InvoiceRequest, caveats: &[String]) -> Option<PendingKey> {
        let client = unless_panics(|| (self.client)(head))??;
        let mut hash = Sha256::new();
        hash.update(client.as_bytes());
        hash.update(ask.amount_msat.to_be_bytes());
        hash.update(ask.token_id.key_id());
        for text in [&ask.service, &ask.offer, &ask.description].into_iter().chain(caveats) {
            hash.update((text.len() as u64).to_be_bytes());
            hash.update(text);
        }
        Some(PendingKey(hash.finalize().into()))
    }

    /// The pending challenge, unless it is too old at this unix second.
    pub(crate) fn get(&self, key: PendingKey, now: u64) -> Option<Sold> {
        self.pending().by_key.get(&key).filter(|(_, until)| now < *until).map(|(sold, _)| sold.clone())
    }

    /// Remembers a challenge, where there is a place. Half of the time to pay
    /// is left whenever it is answered again.
    pub(crate) fn remember(&self, key: PendingKey, sold: &Sold, now: u64) {
        let until = now + (sold.pay_by.saturating_sub(now) / 2).min(MAX_SECONDS);
        let mut pending = self.pending();
        if pending.by_key.len() >= MAX_PENDING {
            let Pending { by_key, by_hash } = &mut *pending;
            by_key.retain(|_, (_, until)| now < *until);
            by_hash.retain(|_, key| by_key.contains_key(key));
            if by_key.len() >= MAX_PENDING {
                return;
            }
        }
        if let Some((before, _)) = pending.by_key.insert(key, (sold.clone(), until)) {
            pending.by_hash.remove(&before.payment_hash);
        }
        pending.by_hash.insert(sold.payment_hash, key);
    }

    /// Forgets the challenge of a token that was presented: it is somebody's
    /// now, and is handed to nobody else.
    pub(crate) fn forget(&self, hash: PaymentHash) {
        let mut pending = self.pending();
        if let Some(key) = pending.by_hash.remove(&hash) {
            pending.by_key.remove(&key);
        }
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Reuse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reuse").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::challenge::Challenge;
    use crate::macaroon::{Identifier, mint};
    use crate::price::Price;

    fn sold(n: u32, pay_by: u64) -> Sold {
        let mut hash = [0; 32];
        hash[..4].copy_from_slice(&n.to_be_bytes());
        let identifier = Identifier { version: 0, payment_hash: hash.into(), token_id: [0; 32].into() };
        let Price::Amount(price) = Price::msat(1) else { unreachable!("not free") };
        Sold {
            challenge: Challenge::new(mint(b"", &identifier, ["a=b"]).unwrap(), String::new()),
            offer: "default".into(),
            payment_hash: hash.into(),
            price,
            price_msat: 1,
            amount_msat: 1,
            pay_by,
            valid_until: pay_by,
            is_repeated: false,
            #[cfg(feature = "offers")]
            handle: None,
            #[cfg(feature = "offers")]
            listing: None,
        }
    }

    fn key(n: u32) -> PendingKey {
        let mut key = [0; 32];
        key[..4].copy_from_slice(&n.to_be_bytes());
        PendingKey(key)
    }

    #[test]
    fn a_challenge_is_pending_for_a_minute_and_half_its_life_at_most() {
        for (pay_by, until) in [(1_300, 1_060), (1_120, 1_060), (1_031, 1_015), (1_001, 1_000), (900, 1_000)]
        {
            let reuse = Reuse::new(Arc::new(|_| None));
            reuse.remember(key(1), &sold(1, pay_by), 1_000);
            assert!(reuse.get(key(1), until - 1).is_some() || until == 1_000, "{pay_by}");
            assert!(reuse.get(key(1), until).is_none(), "{pay_by}");
            assert!(reuse.get(key(2), 1_000).is_none());
        }
    }

    #[test]
    fn a_token_that_was_presented_is_pending_no_more() {
        let reuse = Reuse::new(Arc::new(|_| None));
        reuse.remember(key(1), &sold(1, 2_000), 1_000);
        reuse.remember(key(2), &sold(2, 2_000), 1_000);
        reuse.forget(sold(1, 0).payment_hash);
        assert!(reuse.get(key(1), 1_000).is_none());
        assert!(reuse.get(key(2), 1_000).is_some());
        // One that took the place of another is not forgotten with it.
        reuse.remember(key(2), &sold(3, 2_000), 1_000);
        reuse.forget(sold(2, 0).payment_hash);
        assert_eq!(reuse.get(key(2), 1_000).unwrap().payment_hash, sold(3, 0).payment_hash);
    }

    #[test]
    fn the_table_is_bounded_and_makes_place_for_the_young() {
        let reuse = Reuse::new(Arc::new(|_| None));
        let held = |now| (0..5_000).filter(|n| reuse.get(key(*n), now).is_some()).count();
        (0..2_000).for_each(|n| reuse.remember(key(n), &sold(n, 2_000), 1_000));
        assert_eq!(held(1_000), MAX_PENDING);
        (2_000..3_000).for_each(|n| reuse.remember(key(n), &sold(n, 2_000), 1_060));
        assert_eq!(held(1_060), 1_000);
        let pending = reuse.pending();
        assert_eq!(pending.by_key.len(), pending.by_hash.len());
    }
}
