//! A reservation in the hands of a request: it ends committed or released,
//! however the request ends.
//!
//! Ledger operations, once begun, run to their end. An operation that is not
//! done at once goes on in a task, whether or not the request still waits; one
//! that is not done within the lease has hung, and is given up.

use std::fmt;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::{AccountId, LEASE, Ledger, LedgerError, ReservationId, Reserve, Reserved};
use crate::answer::Refused;
use crate::clock::{Clock, unix};
use crate::entropy::{Entropy, random};
use crate::refusal::Refusal;
use crate::sync::{AtomicUsize, Handle, Ordering, spawn, timeout};

/// Most operations that run at once: as many that somebody waits for, and as
/// many commits and releases. Beyond it a use is refused, and a reservation is
/// left to its lease and so stays spent.
const MAX_RUNNING: usize = 1024;

/// The ledger of an issuer, with what it takes to use it.
pub(crate) struct Meter {
    pub(crate) ledger: Arc<dyn Ledger>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    time_limit: Duration,
    awaited: Places,
    apart: Places,
}

/// What one request takes from an account.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Debit {
    pub(crate) account: AccountId,
    pub(crate) units: u64,
    /// How many units the token says were sold.
    pub(crate) sold: u64,
    /// How many the ledger is told of: as many, or none where it was credited.
    pub(crate) limit: u64,
    pub(crate) ceiling: u64,
    /// When what was sold expires: until then the count is kept. For an account
    /// that was credited what the credit says, and no longer.
    pub(crate) expires_at: u64,
    /// When the presented copy expires, which its holder may have shortened.
    pub(crate) valid_until: u64,
}

impl Meter {
    pub(crate) fn new(
        ledger: Arc<dyn Ledger>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        time_limit: Duration,
    ) -> Self {
        Self { ledger, clock, entropy, time_limit, awaited: Places::default(), apart: Places::default() }
    }

    /// Spends what a request takes; gives the reservation and what is left.
    pub(crate) async fn reserve(self: &Arc<Self>, debit: Debit) -> Result<(Reservation, u64), Refused> {
        let Debit { account, units, limit, ceiling, expires_at, .. } = debit;
        let place = self.place().map_err(|full| Refused::because(Refusal::LedgerUnavailable, full))?;
        let id = ReservationId::new(account, random(&*self.entropy));
        let ask = Reserve { id, units, limit, ceiling, expires_at, now: unix(self.clock.now()) };
        // Armed before the first poll: a request that is dropped at any await
        // from here on gives its use back.
        let reservation = Reservation {
            meter: self.clone(),
            runtime: Handle::try_current().ok(),
            id,
            on_drop: Some(OnDrop::Release),
        };

        let ledger = self.ledger.clone();
        let answer = self.run_in(place, async move { ledger.reserve(&ask).await }).await;
        match answer {
            Ok(Reserved::Open { remaining }) => return Ok((reservation, remaining)),
            // It may have been made all the same: the drop releases it.
            Err(error) => return Err(Refused::because(Refusal::LedgerUnavailable, error)),
            Ok(_) => reservation.forget(),
        }
        Err(match answer {
            Ok(Reserved::UsedUp) => Refusal::UsedUp.into(),
            Ok(Reserved::Expired) => Refusal::Expired.into(),
            _ => Refusal::LedgerUnavailable.into(),
        })
    }

    /// Awaits a ledger operation, which goes on in a task where it takes long.
    pub(crate) async fn run_to_end<T, F>(&self, operation: F) -> Result<T, LedgerError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, LedgerError>> + Send + 'static,
    {
        self.run_in(self.place()?, operation).await
    }

    fn place(&self) -> Result<Place, LedgerError> {
        self.awaited.enter().ok_or_else(|| LedgerError::new("too many operations wait"))
    }

    async fn run_in<T, F>(&self, place: Place, operation: F) -> Result<T, LedgerError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, LedgerError>> + Send + 'static,
    {
        let mut operation = Box::pin(operation);
        if let Poll::Ready(answer) = poll_fn(|cx| Poll::Ready(poll_caught(operation.as_mut(), cx))).await {
            return answer;
        }
        let task = spawn(within_lease(operation, place));
        match timeout(self.time_limit, task).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(panicked)) => Err(LedgerError::new(panicked)),
            Err(elapsed) => Err(LedgerError::new(elapsed)),
        }
    }
}

impl fmt::Debug for Meter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Meter").field("ledger", &self.ledger).finish_non_exhaustive()
    }
}

/// What becomes of a reservation that nobody ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnDrop {
    Release,
    Commit,
}

/// Units that are spent until they are given back.
#[must_use]
pub(crate) struct Reservation {
    meter: Arc<Meter>,
    runtime: Option<Handle>,
    id: ReservationId,
    /// `None` where the ledger never made it.
    on_drop: Option<OnDrop>,
}

impl Reservation {
    pub(crate) fn on_drop(&mut self, on_drop: OnDrop) {
        self.on_drop = Some(on_drop);
    }

    /// Whether it is charged when it ends now.
    pub(crate) fn is_charged(&self) -> bool {
        self.on_drop == Some(OnDrop::Commit)
    }

    fn forget(mut self) {
        self.on_drop = None;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let Some(end) = self.on_drop else { return };
        let (ledger, id) = (self.meter.ledger.clone(), self.id);
        let now = unix(self.meter.clock.now());
        let operation = async move {
            match end {
                OnDrop::Commit => ledger.commit(&id).await,
                OnDrop::Release => ledger.release(&id, now).await,
            }
        };
        if let Some(place) = self.meter.apart.enter() {
            run_apart(Box::pin(operation), self.runtime.as_ref(), place);
        }
    }
}

/// Runs an operation nobody waits for: at once where it is done at once, else
/// in a task. Its failure leaves the reservation to its lease.
fn run_apart(
    mut operation: Pin<Box<dyn Future<Output = Result<(), LedgerError>> + Send>>,
    runtime: Option<&Handle>,
    place: Place,
) {
    let _entered = runtime.map(Handle::enter);
    if poll_caught(operation.as_mut(), &mut Context::from_waker(Waker::noop())).is_ready() {
        return;
    }
    if let Some(runtime) = runtime {
        runtime.spawn(within_lease(operation, place));
    }
}

/// The end of an operation that was not done at once. One that is not done
/// within the lease has hung: its place goes to one that may be done.
async fn within_lease<T>(
    operation: impl Future<Output = Result<T, LedgerError>>,
    _place: Place,
) -> Result<T, LedgerError> {
    timeout(LEASE, operation).await.unwrap_or_else(|elapsed| Err(LedgerError::new(elapsed)))
}

/// How many operations run, so that a ledger that hangs makes no more than
/// [`MAX_RUNNING`] tasks. Taken before the first poll: what has begun is not
/// given up for want of a place.
#[derive(Default)]
struct Places(Arc<AtomicUsize>);

struct Place(Arc<AtomicUsize>);

impl Places {
    fn enter(&self) -> Option<Place> {
        let place = Place(self.0.clone());
        // Past the bound the place is dropped, and so counted down again.
        (self.0.fetch_add(1, Ordering::Relaxed) < MAX_RUNNING).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Polls a ledger operation in the midst of a request. A panic of the ledger's
/// is a failure of the ledger's, as it is in a task: the request that it would
/// end may be admitted already, or unwind itself.
fn poll_caught<T, F>(operation: Pin<&mut F>, cx: &mut Context<'_>) -> Poll<Result<T, LedgerError>>
where
    F: Future<Output = Result<T, LedgerError>> + ?Sized,
{
    catch_unwind(AssertUnwindSafe(|| operation.poll(cx)))
        .unwrap_or_else(|_| Poll::Ready(Err(LedgerError::new("ledger panicked"))))
}

impl fmt::Debug for Reservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reservation").field("on_drop", &self.on_drop).finish_non_exhaustive()
    }
}
