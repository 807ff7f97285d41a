//! The ledger of one machine, in a SQLite file.
//!
//! `store.rs` has what each operation does to the tables.

mod store;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;

use super::{
    Account, AccountId, Ledger, LedgerError, OpenReservation, ReservationId, Reserve, Reserved, Revocation,
    Revocations,
};
use crate::error::{Error, ErrorKind};
use crate::sqlite::Thread;
use store::Store;

pub use crate::sqlite::Synchronous;

/// Counts in a file, which survive the process. The processes of one machine
/// may share the file; it must be on a local disk, for WAL, the journal it is
/// kept with, needs memory that they share.
///
/// Where an older copy of the file is put back, the uses since then can be used
/// again: revoke what was sold before ([`Revocation::Service`]).
///
/// ```
/// # async fn open(dir: &std::path::Path) -> Result<(), l402::Error> {
/// use l402::SqliteLedger;
///
/// let ledger = SqliteLedger::open(dir.join("uses.db")).await?;
/// # Ok(())
/// # }
/// # let dir = tempfile::tempdir().unwrap();
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(open(dir.path())).unwrap();
/// ```
///
/// A thread of its own does the work, one transaction for all that wait. It
/// ends when the ledger is dropped and what was begun is done. About 200 bytes
/// of disk for each metered token in use, until it expires.
pub struct SqliteLedger {
    file: PathBuf,
    thread: Thread<Store>,
    revocations: Arc<Revocations>,
}

impl SqliteLedger {
    /// Opens the file, which is created, for this user alone, if it does not
    /// exist, and brings its tables up to date. They are named `l402_…`, so the
    /// file may hold others.
    ///
    /// # Errors
    /// The file cannot be opened, read or written, or a later version of the
    /// crate wrote it. The text says which file, and why.
    pub async fn open(file: impl AsRef<Path>) -> Result<Self, Error> {
        Self::open_with(file, Synchronous::Full).await
    }

    /// Opens the file, with a choice between speed and what a power cut costs.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn open_with(file: impl AsRef<Path>, synchronous: Synchronous) -> Result<Self, Error> {
        let file = file.as_ref().to_owned();
        let revocations = Arc::new(Revocations::new());
        let (path, known) = (file.clone(), revocations.clone());
        let thread = Thread::start(move || Store::open(&path, synchronous, known)).await;
        let thread = thread.map_err(|cause| {
            Error::new(ErrorKind::Ledger, format!("ledger {} cannot be opened: {cause}", file.display()))
        })?;
        Ok(Self { file, thread, revocations })
    }

    async fn run<T, F>(&self, operation: F) -> Result<T, LedgerError>
    where
        T: Send + 'static,
        F: Fn(&Store) -> rusqlite::Result<T> + Send + 'static,
    {
        self.thread.run(operation).await.map_err(LedgerError::new)
    }
}

impl fmt::Debug for SqliteLedger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteLedger").field("file", &self.file).finish_non_exhaustive()
    }
}

#[async_trait]
impl Ledger for SqliteLedger {
    fn instance(&self) -> Option<[u8; 16]> {
        None
    }

    fn revocations(&self) -> &Revocations {
        &self.revocations
    }

    async fn reserve(&self, ask: &Reserve) -> Result<Reserved, LedgerError> {
        let ask = *ask;
        self.run(move |store| store.reserve(&ask)).await
    }

    async fn commit(&self, id: &ReservationId) -> Result<(), LedgerError> {
        let id = *id;
        self.run(move |store| store.commit(&id)).await
    }

    async fn release(&self, id: &ReservationId, now: u64) -> Result<(), LedgerError> {
        let id = *id;
        self.run(move |store| store.release(&id, now)).await
    }

    async fn credit(
        &self,
        account: &AccountId,
        units: u64,
        event_id: &str,
        expires_at: u64,
    ) -> Result<(), LedgerError> {
        let (account, event) = (*account, event_id.to_owned());
        self.run(move |store| store.credit(account, units, &event, expires_at)).await
    }

    async fn account(&self, account: &AccountId) -> Result<Option<Account>, LedgerError> {
        let account = *account;
        self.run(move |store| store.account(account)).await
    }

    async fn revoke(&self, revocation: &Revocation) -> Result<(), LedgerError> {
        // In force here even where it cannot be stored.
        self.revocations.add(revocation);
        let revocation = revocation.clone();
        self.run(move |store| store.revoke(&revocation)).await
    }

    async fn open_reservations(&self) -> Result<Vec<OpenReservation>, LedgerError> {
        self.run(Store::open_reservations).await
    }
}
