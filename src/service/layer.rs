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
///
/// # gRPC
///
/// The layer goes on a whole tonic server, or on one service with the
/// `named_layer` of `tonic::service::LayerExt`. With the feature `tonic` a
/// service behind a gate has its name without that, as other wrappers need it.
///
/// ```
/// # #[cfg(feature = "dev")] {
/// use l402::{Access, DevBackend, Gate, Grant, Issuer, L402Layer, Offer, Price};
/// use tonic::{service::LayerExt as _, transport::Server};
///
/// let (_, health) = tonic_health::server::health_reporter();
/// # let weather = tonic_reflection::server::Builder::configure().build_v1().unwrap();
/// let issuer = Issuer::dev(&DevBackend::new());
/// let gate = Gate::builder(&issuer, "weather", Offer::new(Price::sat(3), Access::uses(50)))
///     .free_if(|head| head.uri.path().starts_with("/grpc.health.v1.Health/"))
///     .build()?;
///
/// // One service; those beside it are free.
/// Server::builder()
///     .add_service(L402Layer::new(gate.clone()).named_layer(weather.clone()))
///     .add_service(health.clone());
///
/// // The whole server, but for what `free_if` lets pass.
/// Server::builder().layer(L402Layer::new(gate)).add_service(weather).add_service(health);
///
/// // In a method:
/// fn left(request: &tonic::Request<()>) -> Result<Option<u64>, tonic::Status> {
///     let grant = request.extensions().get::<Grant>();
///     Ok(grant.ok_or_else(|| tonic::Status::internal("no gate before this method"))?.remaining())
/// }
/// # }
/// # Ok::<(), l402::Error>(())
/// ```
///
/// A call without a token ends with status 13, `payment required`, and the
/// challenge in the metadatum `www-authenticate`; [`Refusal`](crate::Refusal)
/// has the other codes. The credential stands in the metadata: `authorization`
/// as over HTTP, or `macaroon` or `token`, the hex of the macaroon with its
/// preimage as a caveat.
///
/// A call is one use, however many messages it streams. It is charged when the
/// head of the response goes out: an `Err` that a method returns stands in the
/// head, and with a code of the server ([`ChargeOn`](crate::ChargeOn)) gives the
/// use back; an error within a stream comes after it, and does not. Nor does a
/// method that the server does not have: `UNIMPLEMENTED` is charged, so let
/// `free_if` pass the paths that you do not sell.
///
/// For gRPC-web, `GrpcWebLayer` goes on either side of the gate, and a CORS layer
/// above both.
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
    /// is honoured behind it, until its tokens have expired:
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
    /// layer.set_gate(builder.with_offer(new).honour_offer(old).build()?);
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
