//! What keeps challenges from harming the server: a bound on the invoices
//! that are made at once, a time limit for each, and a memory of the payment
//! hashes that were sold.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::preimage::PaymentHash;

#[derive(Debug)]
pub(crate) struct ChallengeLimits {
    in_flight: Semaphore,
    pub(crate) time_limit: Duration,
    sold: Mutex<Sold>,
}

impl ChallengeLimits {
    pub(crate) fn new(in_flight: usize, time_limit: Duration) -> Self {
        Self { in_flight: Semaphore::new(in_flight), time_limit, sold: Mutex::default() }
    }

    /// A place among the invoices that are made at once; `None` where all are taken.
    pub(crate) fn enter(&self) -> Option<SemaphorePermit<'_>> {
        self.in_flight.try_acquire().ok()
    }

    /// Remembers a payment hash; `false` where it was sold before.
    pub(crate) fn is_new(&self, hash: PaymentHash) -> bool {
        self.sold.lock().unwrap_or_else(PoisonError::into_inner).insert(hash)
    }
}

/// How many hashes are remembered at least, and twice this at most: up to
/// 131,072 of 16 bytes, under 5 MiB with the tables.
const GENERATION: usize = 65_536;

/// The first 16 bytes of the payment hashes sold last, in two generations.
#[derive(Debug, Default)]
struct Sold {
    young: HashSet<[u8; 16]>,
    old: HashSet<[u8; 16]>,
}

impl Sold {
    fn insert(&mut self, hash: PaymentHash) -> bool {
        let key = hash.as_bytes()[..16].try_into().expect("16 of 32 bytes");
        if self.old.contains(&key) || !self.young.insert(key) {
            return false;
        }
        if self.young.len() >= GENERATION {
            self.old = std::mem::take(&mut self.young);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(n: usize) -> PaymentHash {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&n.to_be_bytes());
        bytes.into()
    }

    #[test]
    fn the_last_65536_hashes_are_remembered_and_the_table_stays_small() {
        let mut sold = Sold::default();
        for n in 0..4 * GENERATION {
            assert!(sold.insert(hash(n)));
            assert!(!sold.insert(hash(n)));
            assert!(sold.young.len() + sold.old.len() <= 2 * GENERATION);
        }
        for n in 3 * GENERATION..4 * GENERATION {
            assert!(!sold.insert(hash(n)), "{n}");
        }
        assert!(sold.insert(hash(0)), "long forgotten");
    }
}
