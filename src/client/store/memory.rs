//! The token store of one process.

use std::fmt;

use async_trait::async_trait;

use super::book::Book;
use super::{Begun, Purchase, Spent, StoreError, TokenStore};
use crate::client::budget::Budget;
use crate::preimage::{PaymentHash, Preimage};
use crate::sync::{Mutex, MutexGuard, PoisonError};

/// Purchases in memory: for tests, and for programs that may forget. Tokens,
/// what was spent, and payments whose end is not known end with the process; so
/// its budget is one of the process, and a payment that a crash interrupts is
/// not resumed. Where that matters take a file or SQLite.
///
/// Clones of an [`Arc`](std::sync::Arc) of it share one budget.
#[derive(Default)]
pub struct MemoryStore(Mutex<Book>);

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        // What panics leaves the book as it was before, or after: each operation checks first.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").finish_non_exhaustive()
    }
}

#[async_trait]
impl TokenStore for MemoryStore {
    async fn begin(&self, purchase: &Purchase, budget: &Budget, now: u64) -> Result<Begun, StoreError> {
        self.book().begin(purchase, budget, now)
    }

    async fn settle(
        &self,
        payment_hash: PaymentHash,
        preimage: Option<Preimage>,
        fee_msat: u64,
        now: u64,
    ) -> Result<(), StoreError> {
        self.book().settle(payment_hash, preimage, fee_msat, now).map(drop)
    }

    async fn fail(&self, payment_hash: PaymentHash) -> Result<(), StoreError> {
        self.book().fail(payment_hash);
        Ok(())
    }

    async fn discard(&self, payment_hash: PaymentHash) -> Result<(), StoreError> {
        self.book().discard(payment_hash);
        Ok(())
    }

    async fn of_origin(&self, origin: &str) -> Result<Vec<Purchase>, StoreError> {
        Ok(self.book().of_origin(origin))
    }

    async fn all(&self) -> Result<Vec<Purchase>, StoreError> {
        Ok(self.book().all())
    }

    async fn spent(&self, origin: &str, now: u64) -> Result<Spent, StoreError> {
        Ok(self.book().spent(origin, now))
    }
}
