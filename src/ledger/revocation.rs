//! What no longer counts as paid, in a snapshot that every admission reads
//! without a lock.

use std::collections::HashSet;
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

/// The revocations that a ledger knows of.
#[derive(Default)]
pub struct Revocations(ArcSwap<HashSet<Revocation>>);

impl Revocations {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one, in force from now on.
    pub fn add(&self, revocation: &Revocation) {
        self.0.rcu(|known| {
            let mut known = HashSet::clone(known);
            known.insert(revocation.clone());
            known
        });
    }

    /// Puts those that a store holds in place of all that were known.
    pub fn replace(&self, revocations: impl IntoIterator<Item = Revocation>) {
        self.0.store(Arc::new(revocations.into_iter().collect()));
    }

    pub(crate) fn contains(&self, hash: PaymentHash, id: TokenId, service: &str) -> bool {
        let known = self.0.load();
        let by_service = |revocation: &Revocation| matches!(revocation, Revocation::Service { name, issued_before } if name == service && id.issued_at() < *issued_before);
        !known.is_empty()
            && (known.contains(&Revocation::Token(hash))
                || known.contains(&Revocation::Key(id.key_id()))
                || known.iter().any(by_service))
    }
}

impl fmt::Debug for Revocations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Revocations").field("count", &self.0.load().len()).finish()
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
            revocations.replace([]);
            assert!(!revocations.contains(hash, id, "a"));
        }
    }
}
