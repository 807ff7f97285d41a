//! One handler behind a gate, without a layer.

use std::fmt;
use std::marker::PhantomData;

use axum_core::body::Body;
use axum_core::extract::{FromRef, FromRequestParts};
use axum_core::response::{IntoResponse, Response};
use http::request::Parts;

use crate::answer;
use crate::gate::Gate;
use crate::grant::Grant;
use crate::settle::{Held, Slot};

/// Gates one axum handler, without a layer: it runs only for a request that the
/// gate admits, and who has not paid is answered as [`L402Layer`] answers.
///
/// `P` is the part of the application's state that holds the gate, which is
/// built and checked at start.
///
/// An extractor does not see the response, so a `Paid` that is dropped stays
/// spent, also when a later extractor rejects the request or the handler fails.
/// [`paid.settle(response)`](Self::settle) in the handler charges or gives back
/// by the response, and marks it as paid. A [`SettleLayer`] above does so for all
/// handlers, also for panics, for clients that leave and for rejections.
///
/// Extractors run in the order of the arguments. Put `Paid` behind those that
/// may reject the request, for which nobody should pay. The body is read by the
/// last one: never before the request was admitted.
///
/// ```
/// # #[cfg(feature = "dev")] {
/// use axum::extract::{FromRef, Path, State};
/// use axum::{Router, response::Response, routing::get};
/// use l402::{Access, DevBackend, Gate, Issuer, Offer, Paid, Price};
/// # use axum::response::IntoResponse;
/// # #[derive(Clone)] struct Db;
/// # async fn render(_: &Db, id: u64) -> Response { format!("document {id}").into_response() }
///
/// #[derive(Clone)]
/// struct Forecast(Gate);
///
/// impl AsRef<Gate> for Forecast {
///     fn as_ref(&self) -> &Gate { &self.0 }
/// }
///
/// #[derive(Clone, FromRef)]
/// struct App { forecast: Forecast, db: Db }
///
/// async fn forecast(paid: Paid<Forecast>) -> String {
///     format!("{:?} left", paid.grant().remaining())
/// }
///
/// async fn doc(State(db): State<Db>, Path(id): Path<u64>, paid: Paid<Forecast>) -> Response {
///     paid.settle(render(&db, id).await) // a 5xx gives the use back
/// }
///
/// async fn only(paid: Paid) -> &'static str { "one gate" }
///
/// let issuer = Issuer::dev(&DevBackend::new());
/// let gate = Gate::new(&issuer, "forecast", Offer::new(Price::sat(21), Access::uses(100)))?;
/// let app = App { forecast: Forecast(gate.clone()), db: Db };
/// let app: Router = Router::new()
///     .route("/forecast", get(forecast))
///     .route("/docs/{id}", get(doc))
///     .with_state(app)
///     .merge(Router::new().route("/only", get(only)).with_state(gate)); // no type at all
/// # }
/// # Ok::<(), l402::Error>(())
/// ```
///
/// The [`Grant`] is in the request's extensions from here on: a second `Paid`
/// takes no second use, and one behind an [`L402Layer`] takes none. A gate that
/// the same token does not open is answered 500, as it is behind a layer.
///
/// # Cancel safety
/// Dropped while it waits, it gives a use back that it had reserved.
///
/// # Panics
/// As [`Gate::admit`].
///
/// [`L402Layer`]: crate::L402Layer
/// [`SettleLayer`]: crate::SettleLayer
#[must_use = "a dropped `Paid` stays spent; settle it with the response"]
pub struct Paid<P = Gate> {
    grant: Grant,
    settlement: Held,
    gate: PhantomData<fn() -> P>,
}

impl<P> Paid<P> {
    /// What the request was granted.
    pub fn grant(&self) -> &Grant {
        &self.grant
    }

    /// Charges the use or gives it back, as the response and the gate's
    /// [`ChargeOn`](crate::ChargeOn) say, and marks the response as paid: see
    /// [`Admission::settle`](crate::Admission::settle). Nothing is awaited.
    pub fn settle(self, response: impl IntoResponse) -> Response {
        let response = response.into_response();
        match self.settlement.take() {
            Some(settlement) => settlement.settle(response),
            None => response,
        }
    }
}

impl<S, P> FromRequestParts<S> for Paid<P>
where
    S: Sync,
    P: FromRef<S> + AsRef<Gate>,
{
    /// A refusal as [`L402Layer`](crate::L402Layer) answers it.
    type Rejection = Response;

    async fn from_request_parts(head: &mut Parts, state: &S) -> Result<Self, Response> {
        if answer::is_preflight(head) {
            return Err(answer::preflight().map(Body::from));
        }
        let gate = P::from_ref(state).as_ref().clone();
        let admission = gate.admit(head).await.map_err(|response| response.map(Body::from))?;
        let (grant, settlement) = admission.into_parts();
        head.extensions.insert(grant.clone());
        let settlement = Held::new(settlement, head.extensions.get::<Slot>());
        Ok(Self { grant, settlement, gate: PhantomData })
    }
}

/// So that `Paid` needs no type where the gate is all of the state.
impl AsRef<Gate> for Gate {
    fn as_ref(&self) -> &Gate {
        self
    }
}

impl<P> fmt::Debug for Paid<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Paid").field("grant", &self.grant).finish_non_exhaustive()
    }
}
