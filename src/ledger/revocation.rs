//! What no longer counts as paid, in a snapshot that every admission reads
//! without a lock.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::macaroon::TokenId;
use crate::preimage::PaymentHash;

/// What no longer counts as paid.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Revocation {
    /// The token with this payment hash.
    Token(PaymentHash),
    /// Every token of the service that was issued before this unix second.
    Service {
        /// The name of the service.
        name: String,
        /// Tokens issued earlier than this are revoked.
        issued_before: u64,
    },
    /// Every token signed with the key of this id, which is bytes 1 to 4 of
    /// its [`TokenId`].
    Key([u8; 4]),
}

/// The revocations that a ledger knows of: those that its store held when it
/// was read last, and those that were added in this process.
#[derive(Default)]
pub struct Revocations {
    loaded: ArcSwap<Sets>,
    added: ArcSwap<Sets>,
}

/// Revocations by what they name, so that an admission looks up and scans nothing.
#[derive(Clone, Default)]
struct Sets {
    tokens: HashSet<PaymentHash>,
    /// The latest moment for each service.
    services: HashMap<String, u64>,
    keys: HashSet<[u8; 4]>,
}

impl Sets {
    fn insert(&mut self, revocation: Revocation) {
        match revocation {
            Revocation::Token(hash) => drop(self.tokens.insert(hash)),
            Revocation::Key(id) => drop(self.keys.insert(id)),
            Revocation::Service { name, issued_before } => {
                let latest = self.services.entry(name).or_default();
                *latest = issued_before.max(*latest);
            }
        }
    }

    fn holds(&self, id: TokenId, service: &str) -> bool {
        self.keys.contains(&id.key_id())
            || self.services.get(service).is_some_and(|issued_before| id.issued_at() < *issued_before)
    }

    fn is_empty(&self) -> bool {
        self.tokens.is_empty() && self.services.is_empty() && self.keys.is_empty()
    }
}

impl Revocations {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one, in force from now on.
    pub fn add(&self, revocation: &Revocation) {
        self.added.rcu(|added| {
            let mut added = Sets::clone(added);
            added.insert(revocation.clone());
            added
        });
    }

    /// Takes over what a store holds. Those that were added in this process
    /// stay, whether or not the store was read before they reached it.
    pub fn load(&self, stored: impl IntoIterator<Item = Revocation>) {
        let mut sets = Sets::default();
        stored.into_iter().for_each(|revocation| sets.insert(revocation));
        self.loaded.store(Arc::new(sets));
    }

    pub(crate) fn contains(&self, hash: PaymentHash, id: TokenId, service: &str) -> bool {
        [&self.loaded, &self.added].into_iter().any(|sets| {
            let sets = sets.load();
            !sets.is_empty() && (sets.tokens.contains(&hash) || sets.holds(id, service))
        })
    }

    /// Whether a token with this id would be revoked as soon as it is sold.
    pub(crate) fn would_revoke(&self, id: TokenId, service: &str) -> bool {
        [&self.loaded, &self.added].into_iter().any(|sets| sets.load().holds(id, service))
    }
}

impl fmt::Debug for Revocations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Revocations").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_revoked_by_its_hash_its_service_and_its_key() {
        let id = TokenId::new([1, 2, 3, 4], 1000, 4, [0; 21]);
        let hash = PaymentHash::from_bytes([7; 32]);
        let service = |name: &str, issued_before| Revocation::Service { name: name.into(), issued_before };
        for (revocation, revoked) in [
            (Revocation::Token(hash), true),
            (Revocation::Token([8; 32].into()), false),
            (Revocation::Key([1, 2, 3, 4]), true),
            (Revocation::Key([1, 2, 3, 5]), false),
            (service("a", 1001), true),
            (service("a", 1000), false),
            (service("b", 1001), false),
        ] {
            let revocations = Revocations::new();
            assert!(!revocations.contains(hash, id, "a"));
            revocations.add(&revocation);
            assert_eq!(revocations.contains(hash, id, "a"), revoked, "{revocation:?}");
            revocations.load([]);
            assert_eq!(revocations.contains(hash, id, "a"), revoked, "what was added here stays");
            let other = Revocations::new();
            other.load([revocation]);
            assert_eq!(other.contains(hash, id, "a"), revoked, "what a store holds is known");
        }
    }
}
