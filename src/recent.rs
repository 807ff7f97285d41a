//! The payment hashes that were added last, in a table of bounded size.

use std::collections::HashSet;

use crate::preimage::PaymentHash;

/// How many are remembered at least, and twice this at most: up to 131,072 of
/// 16 bytes, under 5 MiB with the tables.
const GENERATION: usize = 65_536;

/// The first 16 bytes of the hashes, in two generations.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    young: HashSet<[u8; 16]>,
    old: HashSet<[u8; 16]>,
}

impl Recent {
    /// Adds a hash; `false` where it is remembered already.
    pub(crate) fn insert(&mut self, hash: PaymentHash) -> bool {
        let key = key(hash);
        if self.old.contains(&key) || !self.young.insert(key) {
            return false;
        }
        if self.young.len() >= GENERATION {
            self.old = std::mem::take(&mut self.young);
        }
        true
    }

    pub(crate) fn contains(&self, hash: PaymentHash) -> bool {
        let key = key(hash);
        self.young.contains(&key) || self.old.contains(&key)
    }
}

fn key(hash: PaymentHash) -> [u8; 16] {
    hash.as_bytes()[..16].try_into().expect("16 of 32 bytes")
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
        let mut recent = Recent::default();
        for n in 0..4 * GENERATION {
            assert!(!recent.contains(hash(n)));
            assert!(recent.insert(hash(n)));
            assert!(!recent.insert(hash(n)));
            assert!(recent.young.len() + recent.old.len() <= 2 * GENERATION);
        }
        for n in 3 * GENERATION..4 * GENERATION {
            assert!(recent.contains(hash(n)), "{n}");
        }
        assert!(recent.insert(hash(0)), "long forgotten");
    }
}
