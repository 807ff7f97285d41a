//! The calls that wait for an answer.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::event::Event;
use crate::backend::{BackendError, BackendErrorKind};

/// Most calls that wait at once.
const MAX_PENDING: usize = 2_048;
/// How long after a request a relay that has said nothing at all since counts as
/// gone, whatever the socket thinks: relays say that they took a request.
const SILENCE: Duration = Duration::from_secs(3);

type Answer = Result<Event, BackendError>;

/// The calls that wait on one link, by the ids of their requests.
#[derive(Default)]
pub(super) struct Pending {
    calls: Mutex<HashMap<String, oneshot::Sender<Answer>>>,
    /// Messages that the relay sent.
    heard: AtomicU64,
    is_abandoned: AtomicBool,
}

impl Pending {
    /// A place for a call, and what it waits for.
    pub(super) fn wait<'a>(
        &'a self,
        id: &'a str,
    ) -> Result<(Waiting<'a>, oneshot::Receiver<Answer>), BackendError> {
        let mut calls = self.calls();
        if calls.len() >= MAX_PENDING {
            let kind = BackendErrorKind::RateLimited { retry_after: None };
            return Err(BackendError::new(kind, "too many calls wait for the wallet"));
        }
        let (sender, answer) = oneshot::channel();
        calls.insert(id.to_owned(), sender);
        let heard = self.heard.load(Ordering::Relaxed);
        Ok((Waiting { pending: self, id, since: Instant::now(), heard }, answer))
    }

    pub(super) fn contains(&self, id: &str) -> bool {
        self.calls().contains_key(id)
    }

    /// Answers a call; whether somebody waited for it.
    pub(super) fn finish(&self, id: &str, answer: Answer) -> bool {
        let call = self.calls().remove(id);
        call.is_some_and(|call| call.send(answer).is_ok())
    }

    /// Tells all that no answer will come.
    pub(super) fn clear(&self) {
        self.calls().clear();
    }

    /// Notes that the relay said something.
    pub(super) fn hear(&self) {
        self.heard.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether the relay was silent for too long.
    pub(super) fn is_abandoned(&self) -> bool {
        self.is_abandoned.load(Ordering::Relaxed)
    }

    fn calls(&self) -> MutexGuard<'_, HashMap<String, oneshot::Sender<Answer>>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call that waits: forgotten when it is answered or given up.
pub(super) struct Waiting<'a> {
    pending: &'a Pending,
    id: &'a str,
    since: Instant,
    heard: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let is_given_up = self.pending.calls().remove(self.id).is_some();
        let is_silent = self.pending.heard.load(Ordering::Relaxed) == self.heard;
        if is_given_up && is_silent && self.since.elapsed() >= SILENCE {
            self.pending.is_abandoned.store(true, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_call_that_is_dropped_leaves_nothing() {
        let pending = Pending::default();
        let (waiting, answer) = pending.wait("one").unwrap();
        let call = async move {
            let _waiting = waiting;
            answer.await
        };
        assert!(tokio::time::timeout(Duration::ZERO, call).await.is_err());
        assert_eq!(pending.calls().len(), 0);
        assert!(!pending.finish("one", Err(BackendError::timeout())));
        assert!(!pending.is_abandoned(), "a moment of silence says nothing");
    }

    #[tokio::test]
    async fn only_so_many_wait_and_all_are_told_of_the_end() {
        let pending = Pending::default();
        let ids: Vec<String> = (0..MAX_PENDING).map(|id| id.to_string()).collect();
        let mut waiting: Vec<_> = ids.iter().map(|id| pending.wait(id).unwrap()).collect();
        let error = pending.wait("more").map(drop).unwrap_err();
        assert_eq!(error.kind(), BackendErrorKind::RateLimited { retry_after: None });
        drop(waiting.pop());
        let last = pending.wait("more").unwrap();
        pending.clear();
        assert!(last.1.await.is_err());
        for (_waiting, answer) in waiting {
            assert!(answer.await.is_err());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_relay_that_says_nothing_to_a_call_is_abandoned() {
        let pending = Pending::default();
        let waiting = pending.wait("one").unwrap();
        tokio::time::advance(SILENCE).await;
        pending.hear();
        drop(waiting);
        assert!(!pending.is_abandoned());
        let waiting = pending.wait("two").unwrap();
        tokio::time::advance(SILENCE).await;
        drop(waiting);
        assert!(pending.is_abandoned());
    }
}
