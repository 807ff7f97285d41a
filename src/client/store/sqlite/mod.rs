//! The token store of one machine, in a SQLite file.
//!
//! `tables.rs` has what each operation does to the tables.

mod tables;

use std::fmt;
use std::path::{Path, PathBuf};

use async_trait::async_trait;

use super::book::{FULL, unknown};
use super::{Begun, Purchase, Spent, StoreError, TokenStore, check_private};
use crate::client::budget::Budget;
use crate::error::{Error, ErrorKind};
use crate::preimage::{PaymentHash, Preimage};
use crate::sqlite::{OpenError, Thread};
use tables::Store;

/// Purchases in a SQLite file, which survive the process. The processes of one
/// machine may share the file, and with it tokens and budget; it must be on a
/// local disk.
///
/// It holds tokens and preimages, which are money, in plain text; it is made
/// for this user alone, and one that others can read is refused. A token that
/// is gone is overwritten; the journal beside the file may show it until the
/// last process closes it.
///
/// ```
/// # async fn open(dir: &std::path::Path) -> Result<(), l402::Error> {
/// use l402::client::SqliteStore;
///
/// let store = SqliteStore::open(dir.join("tokens.db")).await?;
/// # Ok(())
/// # }
/// # let dir = tempfile::tempdir().unwrap();
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(open(dir.path())).unwrap();
/// ```
///
/// What was answered survives a power cut. Where an older copy of the file is
/// put back, what was spent since then is forgotten. A thread of its own does
/// the work, one transaction for all that wait. Each payment reads the sums of
/// some ten thousand rows, in a few milliseconds.
pub struct SqliteStore {
    file: PathBuf,
    thread: Thread<Store>,
}

impl SqliteStore {
    /// Opens the file, which is created, for this user alone, if it does not
    /// exist, and brings its tables up to date. They are named `l402_…`, so the
    /// file may hold others.
    ///
    /// # Errors
    /// The file cannot be opened, read or written, others may read it, or a
    /// later version of the crate wrote it. The text says which file, and why.
    pub async fn open(file: impl AsRef<Path>) -> Result<Self, Error> {
        let file = file.as_ref().to_owned();
        let path = file.clone();
        let open = move || -> Result<Store, OpenError> {
            if let Ok(metadata) = std::fs::metadata(&path) {
                check_private(&metadata)?;
            }
            Store::open(&path)
        };
        let thread = Thread::start(open).await.map_err(|cause| {
            let text = format!("token store {} cannot be opened: {cause}", file.display());
            Error::new(ErrorKind::TokenStore, text)
        })?;
        Ok(Self { file, thread })
    }

    async fn run<T, F>(&self, operation: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Fn(&Store) -> rusqlite::Result<T> + Send + 'static,
    {
        self.thread.run(operation).await.map_err(StoreError::new)
    }
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore").field("file", &self.file).finish_non_exhaustive()
    }
}

#[async_trait]
impl TokenStore for SqliteStore {
    async fn begin(&self, purchase: &Purchase, budget: &Budget, now: u64) -> Result<Begun, StoreError> {
        let (purchase, budget) = (purchase.clone(), *budget);
        let begun = self.run(move |store| store.begin(&purchase, &budget, now)).await?;
        begun.ok_or_else(|| StoreError::new(FULL))
    }

    async fn settle(
        &self,
        payment_hash: PaymentHash,
        preimage: Option<Preimage>,
        fee_msat: u64,
        now: u64,
    ) -> Result<(), StoreError> {
        let settle = move |store: &Store| store.settle(payment_hash, preimage.as_ref(), fee_msat, now);
        if self.run(settle).await? { Ok(()) } else { Err(unknown(payment_hash)) }
    }

    async fn fail(&self, payment_hash: PaymentHash) -> Result<(), StoreError> {
        self.run(move |store| store.fail(payment_hash)).await
    }

    async fn discard(&self, payment_hash: PaymentHash) -> Result<(), StoreError> {
        self.run(move |store| store.discard(payment_hash)).await
    }

    async fn of_origin(&self, origin: &str) -> Result<Vec<Purchase>, StoreError> {
        let origin = origin.to_owned();
        self.run(move |store| store.of_origin(&origin)).await
    }

    async fn all(&self) -> Result<Vec<Purchase>, StoreError> {
        self.run(Store::all).await
    }

    async fn spent(&self, origin: &str, now: u64) -> Result<Spent, StoreError> {
        let origin = origin.to_owned();
        self.run(move |store| store.spent(&origin, now)).await
    }
}
