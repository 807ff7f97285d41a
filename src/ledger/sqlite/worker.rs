//! The thread that a ledger's operations run on.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::Synchronous;
use super::store::{OpenError, Store};
use crate::ledger::{LedgerError, Revocations};

/// Most operations in one transaction.
const BATCH: usize = 256;
/// How often the revocations that other processes stored are read.
const REFRESH: Duration = Duration::from_secs(5);

/// An operation on its way to the thread, and its answer on the way back.
pub(super) trait Job: Send {
    fn run(&mut self, store: &Store) -> rusqlite::Result<()>;
    fn answer(self: Box<Self>, outcome: Result<(), Arc<rusqlite::Error>>);
}

pub(super) struct Queued<T, F> {
    pub(super) operation: F,
    pub(super) result: Option<T>,
    pub(super) answer: oneshot::Sender<Result<T, LedgerError>>,
}

impl<T: Send, F: Fn(&Store) -> rusqlite::Result<T> + Send> Job for Queued<T, F> {
    fn run(&mut self, store: &Store) -> rusqlite::Result<()> {
        self.result = Some((self.operation)(store)?);
        Ok(())
    }

    fn answer(self: Box<Self>, outcome: Result<(), Arc<rusqlite::Error>>) {
        let answer = match outcome {
            Ok(()) => Ok(self.result.expect("each operation of a good batch has run")),
            Err(cause) => Err(LedgerError::new(cause)),
        };
        // Nobody waits any more where the request is gone.
        let _ = self.answer.send(answer);
    }
}

/// The store, and what its thread knows.
pub(super) struct Worker {
    store: Store,
    revocations: Arc<Revocations>,
    /// The last revocation that was read.
    seen: i64,
}

impl Worker {
    pub(super) fn open(
        file: &Path,
        synchronous: Synchronous,
        revocations: Arc<Revocations>,
    ) -> Result<Self, OpenError> {
        let mut worker = Self { store: Store::open(file, synchronous)?, revocations, seen: 0 };
        worker.refresh()?;
        Ok(worker)
    }

    /// Works until there is no ledger to ask.
    pub(super) fn serve(mut self, queue: &Receiver<Box<dyn Job>>) {
        let mut refresh_at = Instant::now() + REFRESH;
        loop {
            match queue.recv_timeout(refresh_at.saturating_duration_since(Instant::now())) {
                Ok(first) => self.run(std::iter::once(first).chain(queue.try_iter()).take(BATCH)),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if Instant::now() >= refresh_at {
                // What cannot be read now is read the next time.
                let _ = self.refresh();
                refresh_at = Instant::now() + REFRESH;
            }
        }
    }

    /// Runs operations in their order. From the first that writes on they share
    /// a transaction, and are answered when it is durable; where one fails,
    /// none of these has happened.
    fn run(&self, jobs: impl Iterator<Item = Box<dyn Job>>) {
        let store = &self.store;
        // Nothing is under way, unless an undo failed.
        let mut outcome = store.undo();
        let mut waiting = Vec::new();
        for mut job in jobs {
            outcome = outcome.and_then(|()| job.run(store));
            if outcome.is_ok() && !store.writes() {
                job.answer(Ok(()));
            } else {
                waiting.push(job);
            }
        }
        outcome = outcome.and_then(|()| store.keep());
        if outcome.is_err() {
            // One that fails is tried again before the next operations.
            let _ = store.undo();
        }
        let outcome = outcome.map_err(Arc::new);
        for job in waiting {
            job.answer(outcome.clone());
        }
    }

    /// Reads the revocations, if there are new ones.
    fn refresh(&mut self) -> rusqlite::Result<()> {
        let last = self.store.last_revocation()?;
        if last != self.seen {
            self.revocations.load(self.store.revocations()?);
            self.seen = last;
        }
        Ok(())
    }
}
