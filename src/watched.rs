//! A backend and a ledger whose every call is timed and told of.
//!
//! An issuer wraps its own in them where anybody may listen, and uses them
//! bare where nobody does.

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use crate::backend::{
    BackendError, BackendErrorKind, Capabilities, Invoice, InvoiceRequest, InvoiceState, PaymentBackend,
};
use crate::event::{Event, Events};
use crate::ledger::{
    Account, AccountId, Ledger, LedgerError, OpenReservation, ReservationId, Reserve, Reserved, Revocation,
    Revocations,
};
use crate::preimage::PaymentHash;

pub(crate) struct Watched<P> {
    inner: P,
    events: Events,
}

impl<P> Watched<P> {
    pub(crate) fn new(inner: P, events: Events) -> Self {
        Self { inner, events }
    }
}

impl<P: fmt::Debug> fmt::Debug for Watched<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl<B: PaymentBackend> Watched<B> {
    async fn backend<T>(
        &self,
        call: &'static str,
        future: impl Future<Output = Result<T, BackendError>>,
    ) -> Result<T, BackendError> {
        let ended = |latency, result: Option<&Result<T, BackendError>>| {
            let error = result.and_then(|result| result.as_ref().err());
            let outcome = match (result, error) {
                (None, _) => "given_up",
                (_, None) => "ok",
                (_, Some(error)) => kind(error.kind()),
            };
            self.events.tell(|| Event::BackendCall { call, outcome, latency, error });
        };
        timed(future, ended).await
    }
}

fn kind(kind: BackendErrorKind) -> &'static str {
    match kind {
        BackendErrorKind::Connect => "connect",
        BackendErrorKind::Timeout => "timeout",
        BackendErrorKind::Auth => "auth",
        BackendErrorKind::RateLimited { .. } => "rate_limited",
        BackendErrorKind::Rejected => "rejected",
        BackendErrorKind::Unsupported => "unsupported",
        BackendErrorKind::InvalidResponse => "invalid_response",
        BackendErrorKind::Backend => "backend",
    }
}

#[async_trait]
impl<B: PaymentBackend> PaymentBackend for Watched<B> {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn create_invoice(&self, ask: &InvoiceRequest) -> Result<Invoice, BackendError> {
        self.backend("create_invoice", self.inner.create_invoice(ask)).await
    }

    async fn look_up(
        &self,
        payment_hash: PaymentHash,
        handle: Option<&str>,
    ) -> Result<InvoiceState, BackendError> {
        let state = self.backend("look_up", self.inner.look_up(payment_hash, handle)).await?;
        self.events.tell(|| Event::LookUp { payment_hash, state });
        Ok(state)
    }

    async fn check_health(&self) -> Result<(), BackendError> {
        self.backend("check_health", self.inner.check_health()).await
    }
}

impl<L: Ledger> Watched<L> {
    async fn ledger<T>(
        &self,
        call: &'static str,
        future: impl Future<Output = Result<T, LedgerError>>,
    ) -> Result<T, LedgerError> {
        let ended = |latency, result: Option<&Result<T, LedgerError>>| {
            let error = result.and_then(|result| result.as_ref().err());
            let outcome = match (result, error) {
                (None, _) => "given_up",
                (_, None) => "ok",
                (_, Some(_)) => "error",
            };
            self.events.tell(|| Event::LedgerCall { call, outcome, latency, error });
        };
        timed(future, ended).await
    }
}

#[async_trait]
impl<L: Ledger> Ledger for Watched<L> {
    fn instance(&self) -> Option<[u8; 16]> {
        self.inner.instance()
    }

    fn revocations(&self) -> &Revocations {
        self.inner.revocations()
    }

    async fn reserve(&self, ask: &Reserve) -> Result<Reserved, LedgerError> {
        self.ledger("reserve", self.inner.reserve(ask)).await
    }

    async fn commit(&self, id: &ReservationId) -> Result<(), LedgerError> {
        self.ledger("commit", self.inner.commit(id)).await
    }

    async fn release(&self, id: &ReservationId, now: u64) -> Result<(), LedgerError> {
        self.ledger("release", self.inner.release(id, now)).await
    }

    async fn credit(
        &self,
        account: &AccountId,
        units: u64,
        event_id: &str,
        expires_at: u64,
    ) -> Result<(), LedgerError> {
        self.ledger("credit", self.inner.credit(account, units, event_id, expires_at)).await
    }

    async fn account(&self, account: &AccountId) -> Result<Option<Account>, LedgerError> {
        self.ledger("account", self.inner.account(account)).await
    }

    async fn revoke(&self, revocation: &Revocation) -> Result<(), LedgerError> {
        self.ledger("revoke", self.inner.revoke(revocation)).await
    }

    async fn open_reservations(&self) -> Result<Vec<OpenReservation>, LedgerError> {
        self.ledger("open_reservations", self.inner.open_reservations()).await
    }
}

/// Awaits a call, and says how long it took and what it gave: nothing, where it
/// panics or is dropped before its end.
async fn timed<T>(call: impl Future<Output = T>, ended: impl FnOnce(Duration, Option<&T>)) -> T {
    let mut ending = Ending { started: Instant::now(), ended: Some(ended), output: PhantomData };
    let output = call.await;
    ending.ended_with(Some(&output));
    output
}

struct Ending<T, F: FnOnce(Duration, Option<&T>)> {
    started: Instant,
    ended: Option<F>,
    output: PhantomData<fn(&T)>,
}

impl<T, F: FnOnce(Duration, Option<&T>)> Ending<T, F> {
    fn ended_with(&mut self, output: Option<&T>) {
        if let Some(ended) = self.ended.take() {
            ended(self.started.elapsed(), output);
        }
    }
}

impl<T, F: FnOnce(Duration, Option<&T>)> Drop for Ending<T, F> {
    fn drop(&mut self) {
        self.ended_with(None);
    }
}
