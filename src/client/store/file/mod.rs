//! The token store of one process at a time, in a file.
//!
//! `format.rs` is what the file says, `disk.rs` how it is read and replaced.

mod disk;
mod format;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;

use super::book::Book;
use super::{Begun, Purchase, Spent, StoreError, TokenStore};
use crate::client::budget::Budget;
use crate::error::{Error, ErrorKind};
use crate::preimage::{PaymentHash, Preimage};
use disk::Disk;

/// Purchases in a JSON file that survives the process, for one process at a
/// time: another one that opens it is refused. Processes that share a budget
/// share a `SqliteStore` (feature `sqlite`).
///
/// The file holds tokens and preimages, which are money, in plain text; it is
/// made for this user alone, and one that others can read is refused. A lock
/// file lies beside it, with `.lock` behind its name.
///
/// ```
/// # async fn open(dir: &std::path::Path) -> Result<(), l402::Error> {
/// use l402::client::FileStore;
///
/// let store = FileStore::open(dir.join("tokens.json")).await?;
/// # Ok(())
/// # }
/// # let dir = tempfile::tempdir().unwrap();
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(open(dir.path())).unwrap();
/// ```
///
/// Every change writes the whole file anew beside the old one, has the disk take
/// it, and puts it in its place: it is whole at any moment, and what was
/// answered survives a power cut. That is for some thousands of tokens and a
/// few changes a second. Where the file is taken away, or an older copy put
/// back, what was spent since then is forgotten.
pub struct FileStore {
    file: PathBuf,
    state: Arc<Mutex<State>>,
}

struct State {
    book: Book,
    disk: Disk,
}

impl FileStore {
    /// Opens the file, which is created, for this user alone, if it does not
    /// exist. Its folder must.
    ///
    /// # Errors
    /// The file cannot be read or written, another process has it open, others
    /// may read it, it is broken or cut off, or a later version of the crate
    /// wrote it. A file that cannot be understood is never taken for an empty
    /// one, whose budget would be new.
    pub async fn open(file: impl AsRef<Path>) -> Result<Self, Error> {
        let file = file.as_ref().to_owned();
        let path = file.clone();
        let opened = match spawn_blocking(move || State::open(&path)).await {
            Ok(opened) => opened,
            Err(cause) => Err(cause.into()),
        };
        let state = opened.map_err(|cause| {
            let text = format!("token store {} cannot be opened: {cause}", file.display());
            Error::new(ErrorKind::TokenStore, text)
        })?;
        Ok(Self { file, state: Arc::new(Mutex::new(state)) })
    }

    /// Does an operation to a copy, which takes the place of the book when it is
    /// on the disk. The operation says whether it changed anything. It is done
    /// to its end whether or not this is awaited to the end.
    async fn change<T, F>(&self, operation: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Book) -> Result<(T, bool), StoreError> + Send + 'static,
    {
        let mut state = self.state.clone().lock_owned().await;
        let change = move || {
            let mut book = state.book.clone();
            let (answer, is_changed) = operation(&mut book)?;
            if is_changed {
                state.disk.write(&format::write(&book)).map_err(StoreError::new)?;
                state.book = book;
            }
            Ok(answer)
        };
        spawn_blocking(change).await.map_err(StoreError::new)?
    }
}

impl State {
    fn open(file: &Path) -> Result<Self, OpenError> {
        let disk = Disk::open(file)?;
        if let Some(text) = disk.read()? {
            return Ok(Self { book: format::read(&text)?, disk });
        }
        let book = Book::default();
        disk.write(&format::write(&book))?;
        Ok(Self { book, disk })
    }
}

type OpenError = Box<dyn std::error::Error + Send + Sync>;

impl fmt::Debug for FileStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileStore").field("file", &self.file).finish_non_exhaustive()
    }
}

#[async_trait]
impl TokenStore for FileStore {
    async fn begin(&self, purchase: &Purchase, budget: &Budget, now: u64) -> Result<Begun, StoreError> {
        let (purchase, budget) = (purchase.clone(), *budget);
        self.change(move |book| {
            let begun = book.begin(&purchase, &budget, now)?;
            Ok((begun, begun == Begun::Started))
        })
        .await
    }

    async fn settle(
        &self,
        payment_hash: PaymentHash,
        preimage: Option<Preimage>,
        fee_msat: u64,
        now: u64,
    ) -> Result<(), StoreError> {
        self.change(move |book| Ok(((), book.settle(payment_hash, preimage, fee_msat, now)?))).await
    }

    async fn fail(&self, payment_hash: PaymentHash) -> Result<(), StoreError> {
        self.change(move |book| Ok(((), book.fail(payment_hash)))).await
    }

    async fn discard(&self, payment_hash: PaymentHash) -> Result<(), StoreError> {
        self.change(move |book| Ok(((), book.discard(payment_hash)))).await
    }

    async fn of_origin(&self, origin: &str) -> Result<Vec<Purchase>, StoreError> {
        Ok(self.state.lock().await.book.of_origin(origin))
    }

    async fn all(&self) -> Result<Vec<Purchase>, StoreError> {
        Ok(self.state.lock().await.book.all())
    }

    async fn spent(&self, origin: &str, now: u64) -> Result<Spent, StoreError> {
        Ok(self.state.lock().await.book.spent(origin, now))
    }
}
