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
    gate: Gate,
    forward_preflight: bool,
}

impl L402Layer {
    /// The layer of this gate.
    pub fn new(gate: Gate) -> Self {
        Self { gate, forward_preflight: false }
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
}

impl<S> Layer<S> for L402Layer {
    type Service = L402<S>;

    fn layer(&self, inner: S) -> L402<S> {
        L402::new(inner, self.gate.clone(), self.forward_preflight)
    }
}
