//! The thread that operations run on.

use std::error::Error;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::{Db, OpenError};

/// Operations that wait for the thread at once.
const QUEUE: usize = 4096;
/// Most operations in one transaction.
const BATCH: usize = 256;
/// How often what other processes wrote is read.
const REFRESH: Duration = Duration::from_secs(5);

/// What operations are done to.
pub(crate) trait Tables: Sized + 'static {
    fn db(&self) -> &Db;

    /// Reads what others may have written, every now and then.
    fn refresh(&mut self) -> rusqlite::Result<()> {
        Ok(())
    }
}

/// A thread with its tables. It ends when this is dropped and what was begun is
/// done.
pub(crate) struct Thread<T>(SyncSender<Box<dyn Job<T>>>);

impl<T: Tables> Thread<T> {
    /// Opens the tables on a thread of their own.
    pub(crate) async fn start<F>(open: F) -> Result<Self, OpenError>
    where
        F: FnOnce() -> Result<T, OpenError> + Send + 'static,
    {
        let (jobs, queue) = sync_channel(QUEUE);
        let (opened, wait) = oneshot::channel();
        let run = move || match open() {
            Err(cause) => drop(opened.send(Err(cause))),
            // Where nobody waits for it any more, there is nothing to do.
            Ok(tables) => opened.send(Ok(())).map_or((), |()| Worker(tables).serve(&queue)),
        };
        thread::Builder::new().name("l402-sqlite".to_owned()).spawn(run)?;
        wait.await.map_err(|_| "its thread ended")??;
        Ok(Self(jobs))
    }

    /// Has the thread run an operation, which it does to the end whether or not
    /// this is awaited to the end.
    pub(crate) async fn run<R, F>(&self, operation: F) -> Result<R, Box<dyn Error + Send + Sync>>
    where
        R: Send + 'static,
        F: Fn(&T) -> rusqlite::Result<R> + Send + 'static,
    {
        let (answer, wait) = oneshot::channel();
        let job = Queued { operation, result: None, answer };
        self.0.try_send(Box::new(job)).map_err(|full| full.to_string())?;
        Ok(wait.await.map_err(|_| "the thread of the database has ended")??)
    }
}

/// An operation on its way to the thread, and its answer on the way back.
trait Job<T>: Send {
    fn run(&mut self, tables: &T) -> rusqlite::Result<()>;
    fn answer(self: Box<Self>, outcome: Result<(), Arc<rusqlite::Error>>);
}

struct Queued<R, F> {
    operation: F,
    result: Option<R>,
    answer: oneshot::Sender<Result<R, Arc<rusqlite::Error>>>,
}

impl<T, R: Send, F: Fn(&T) -> rusqlite::Result<R> + Send> Job<T> for Queued<R, F> {
    fn run(&mut self, tables: &T) -> rusqlite::Result<()> {
        self.result = Some((self.operation)(tables)?);
        Ok(())
    }

    fn answer(self: Box<Self>, outcome: Result<(), Arc<rusqlite::Error>>) {
        let Self { result, answer, .. } = *self;
        // Nobody waits any more where the request is gone.
        let _ = answer.send(outcome.map(|()| result.expect("each operation of a good batch has run")));
    }
}

struct Worker<T>(T);

impl<T: Tables> Worker<T> {
    /// Works until nobody is left who could ask.
    fn serve(mut self, queue: &Receiver<Box<dyn Job<T>>>) {
        let mut refresh_at = Instant::now() + REFRESH;
        loop {
            match queue.recv_timeout(refresh_at.saturating_duration_since(Instant::now())) {
                Ok(first) => self.run(std::iter::once(first).chain(queue.try_iter()).take(BATCH)),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if Instant::now() >= refresh_at {
                // What cannot be read now is read the next time.
                let _ = self.0.refresh();
                refresh_at = Instant::now() + REFRESH;
            }
        }
    }

    /// Runs operations in their order. From the first that writes on they share
    /// a transaction, and are answered when it is durable; where one fails,
    /// none of these has happened.
    fn run(&self, jobs: impl Iterator<Item = Box<dyn Job<T>>>) {
        let (store, db) = (&self.0, self.0.db());
        // Nothing is under way, unless an undo failed.
        let mut outcome = db.undo();
        let mut waiting = Vec::new();
        for mut job in jobs {
            outcome = outcome.and_then(|()| job.run(store));
            if outcome.is_ok() && !db.writes() {
                job.answer(Ok(()));
            } else {
                waiting.push(job);
            }
        }
        outcome = outcome.and_then(|()| db.keep());
        if outcome.is_err() {
            // One that fails is tried again before the next operations.
            let _ = db.undo();
        }
        let outcome = outcome.map_err(Arc::new);
        for job in waiting {
            job.answer(outcome.clone());
        }
    }
}
