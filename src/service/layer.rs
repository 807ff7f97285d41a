use std::sync::Arc;

use arc_swap::ArcSwap;
use tower_layer::Layer;

use crate::gate::Gate;

use super::L402;

/// Puts a [`Gate`] before a service.
///
/// On an axum route write `get(handler).route_layer(..)`, or `.layer(..)` on
/// the handler itself. `get(handler).layer(..)` and the `route_layer` of a whole
/// `Router` also ask a payment for a 405. `any(handler)` has no 405, and takes
/// `.layer(..)`.
#[derive(Clone, Debug)]
#[must_use]
pub struct L402Layer {
    gate: Arc<ArcSwap<Gate>>,
    forward_preflight: bool,
    cut_at_expiry: bool,
}

impl L402Layer {
    /// The layer of this gate.
    pub fn new(gate: Gate) -> Self {
        Self { gate: Arc::new(ArcSwap::from_pointee(gate)), forward_preflight: false, cut_at_expiry: false }
    }

    /// Hands CORS preflights to the inner service, without a payment: for a
    /// CORS layer below the gate that answers them. Where there is none, anyone
    /// calls the handler unpaid with the headers of a preflight. Without this,
    /// the gate answers preflights itself, 204 and empty, and the inner service
    /// does not see them.
    pub fn forward_preflight(mut self) -> Self {
        self.forward_preflight = true;
        self
    }

    /// Ends a streamed response when its token expires: server-sent events, a
    /// gRPC stream, a body of unknown length. It ends as if it were complete, or
    /// for gRPC with the status of an expired token. A body whose length is
    /// known, and a request that cost nothing, are served whole. Without this, a
    /// stream goes on for as long as the inner service feeds it.
    ///
    /// A connection that was upgraded is no body: its handler selects on
    /// [`Grant::expired`](crate::Grant::expired).
    pub fn cut_at_expiry(mut self) -> Self {
        self.cut_at_expiry = true;
        self
    }

    /// Puts another gate in the place of this one while the server runs: for the
    /// next request of every service that this layer or a clone of it made.
    /// Requests under way end at the gate where they began. No request waits
    /// for it.
    ///
    /// What the new gate admits is what it says: tokens of an offer that it has
    /// no more are refused. So a new offer gets an id of its own and the old one
    /// stays behind it, until its tokens have expired:
    ///
    /// ```
    /// # #[cfg(feature = "dev")] {
    /// use l402::{Access, DevBackend, Gate, HOUR, Issuer, L402Layer, Offer, Price};
    ///
    /// let issuer = Issuer::dev(&DevBackend::new());
    /// let old = Offer::new(Price::sat(10), Access::pass(HOUR));
    /// let builder = Gate::builder(&issuer, "forecast", old.clone());
    /// let layer = L402Layer::new(builder.clone().build()?);
    /// // let app = Router::new().route("/forecast", get(forecast).route_layer(layer.clone()));
    ///
    /// let new = Offer::new(Price::sat(20), Access::pass(HOUR)).with_id("2027");
    /// layer.set_gate(builder.with_offer(new).add_offer(old).build()?);
    /// # }
    /// # Ok::<(), l402::Error>(())
    /// ```
    pub fn set_gate(&self, gate: Gate) {
        self.gate.store(Arc::new(gate));
    }
}

impl<S> Layer<S> for L402Layer {
    type Service = L402<S>;

    fn layer(&self, inner: S) -> L402<S> {
        L402::new(inner, self.gate.clone(), self.forward_preflight, self.cut_at_expiry)
    }
}
