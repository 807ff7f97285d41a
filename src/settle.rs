//! What a handler's [`Paid`](crate::Paid) leaves to a layer above it, which
//! sees the response.

use std::fmt;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use http::{Request, Response};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use crate::admission::Settlement;

/// Settles every [`Paid`](crate::Paid) of the handlers below it by their
/// responses, as [`L402Layer`](crate::L402Layer) does: a server error, a panic
/// and a client that leaves give the use back, and a paid response is kept out
/// of shared caches and says in its `RateLimit` fields what is left. What a
/// handler [settles](crate::Paid::settle) itself stays as it did.
///
/// It goes anywhere above the handlers, also above those that cost nothing, and
/// below a layer that retries: each try takes a use, and has to be settled by
/// its own response.
///
/// ```
/// # #[cfg(feature = "dev")] {
/// use axum::{Router, routing::get};
/// use l402::{Access, DevBackend, Gate, Issuer, Offer, Paid, Price, SettleLayer};
///
/// async fn forecast(_: Paid) -> &'static str { "sunny" }
///
/// let issuer = Issuer::dev(&DevBackend::new());
/// let gate = Gate::new(&issuer, "forecast", Offer::new(Price::sat(21), Access::uses(100)))?;
/// let app: Router = Router::new().route("/", get(forecast)).layer(SettleLayer::new()).with_state(gate);
/// # }
/// # Ok::<(), l402::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[must_use]
pub struct SettleLayer(());

impl SettleLayer {
    /// The layer.
    pub fn new() -> Self {
        Self(())
    }
}

impl<S> Layer<S> for SettleLayer {
    type Service = Settle<S>;

    fn layer(&self, inner: S) -> Settle<S> {
        Settle { inner }
    }
}

/// A service whose [`Paid`](crate::Paid) are settled: what [`SettleLayer`] makes.
#[derive(Clone, Debug)]
pub struct Settle<S> {
    inner: S,
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for Settle<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = SettleFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<ReqBody>) -> Self::Future {
        let slot = Slot::open();
        request.extensions_mut().insert(slot.clone());
        let mut left = Left { slot, in_inner: true };
        let response = self.inner.call(request);
        left.in_inner = false;
        SettleFuture { response, left }
    }
}

pin_project! {
    /// The response of a service under a [`SettleLayer`].
    #[must_use = "futures do nothing unless polled"]
    pub struct SettleFuture<F> {
        #[pin]
        response: F,
        left: Left,
    }
}

impl<F, B, E> Future for SettleFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        this.left.in_inner = true;
        let polled = this.response.poll(cx);
        this.left.in_inner = false;
        Poll::Ready(match ready!(polled) {
            Ok(response) => Ok(this
                .left
                .slot
                .close()
                .into_iter()
                .fold(response, |response, settlement| settlement.settle(response))),
            Err(error) => {
                this.left.slot.close().into_iter().for_each(Settlement::fail);
                Err(error)
            }
        })
    }
}

impl<F> fmt::Debug for SettleFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SettleFuture").finish_non_exhaustive()
    }
}

/// What is left to be settled where no response comes.
struct Left {
    slot: Slot,
    in_inner: bool,
}

impl Drop for Left {
    fn drop(&mut self) {
        for mut settlement in self.slot.close() {
            if self.in_inner {
                settlement.until_inner_returns();
            } else {
                settlement.until_response();
            }
        }
    }
}

/// The settlement of a `Paid`: in its own hands, or in those of the layer above.
#[derive(Debug)]
pub(crate) enum Held {
    Here(Settlement),
    Above(Slot, usize),
}

impl Held {
    pub(crate) fn new(settlement: Settlement, slot: Option<&Slot>) -> Self {
        let Some(slot) = slot else { return Self::Here(settlement) };
        match &mut *slot.lock() {
            State::Open(settlements) => {
                settlements.push(Some(settlement));
                Self::Above(slot.clone(), settlements.len() - 1)
            }
            // The response is out, and nobody above will settle any more.
            State::Closed => Self::Here(settlement),
        }
    }

    /// `None` where the layer has settled it.
    pub(crate) fn take(self) -> Option<Settlement> {
        match self {
            Self::Here(settlement) => Some(settlement),
            Self::Above(slot, place) => match &mut *slot.lock() {
                State::Open(settlements) => settlements.get_mut(place)?.take(),
                State::Closed => None,
            },
        }
    }
}

/// The place in a request's extensions where `Paid` leaves its settlement. It
/// is closed with the response: a request whose extensions somebody keeps
/// holds no use back.
#[derive(Clone, Debug)]
pub(crate) struct Slot(Arc<Mutex<State>>);

#[derive(Debug)]
enum State {
    /// In the order in which they came; `None` where the handler settled it.
    Open(Vec<Option<Settlement>>),
    Closed,
}

impl Slot {
    fn open() -> Self {
        Self(Arc::new(Mutex::new(State::Open(Vec::new()))))
    }

    fn close(&self) -> Vec<Settlement> {
        // The lock is gone before a settlement is: ending one calls the ledger.
        let state = mem::replace(&mut *self.lock(), State::Closed);
        match state {
            State::Open(settlements) => settlements.into_iter().flatten().collect(),
            State::Closed => Vec::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
