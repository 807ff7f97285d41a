//! Extractors for axum.

use std::convert::Infallible;
use std::sync::Once;

use axum_core::extract::{FromRequestParts, OptionalFromRequestParts};
use axum_core::response::{IntoResponse, Response};
use http::StatusCode;
use http::request::Parts;

use crate::grant::Grant;

/// The [`Grant`] of the gate before this handler.
///
/// ```
/// use l402::Grant;
///
/// async fn forecast(grant: Grant) -> String {
///     match (grant.remaining(), grant.expires_at()) {
///         (Some(n), Some(t)) => format!("{n} left until {t:?}"),
///         _ => "pass".into(),
///     }
/// }
/// # let _: axum::Router = axum::Router::new().route("/", axum::routing::get(forecast));
/// ```
impl<S: Sync> FromRequestParts<S> for Grant {
    type Rejection = MissingGate;

    async fn from_request_parts(head: &mut Parts, _: &S) -> Result<Self, MissingGate> {
        head.extensions.get().cloned().ok_or(MissingGate)
    }
}

/// `Option<Grant>` is `None` where no gate stands before the handler.
impl<S: Sync> OptionalFromRequestParts<S> for Grant {
    type Rejection = Infallible;

    async fn from_request_parts(head: &mut Parts, _: &S) -> Result<Option<Self>, Infallible> {
        Ok(head.extensions.get().cloned())
    }
}

/// A handler asks for a [`Grant`] and no gate stands before it: a 500, never
/// free access. Put an [`L402Layer`](crate::L402Layer) on the route, or a
/// [`Paid`](crate::Paid) before it in the handler. It stands in the extensions
/// of the response, for a layer above to log; the client learns no more than
/// that the server is built wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "handler extracts a `Grant` but no gate stands before it: add `.route_layer(L402Layer::new(gate))` to its route"
)]
pub struct MissingGate;

impl IntoResponse for MissingGate {
    fn into_response(self) -> Response {
        self.tell();
        let mut response = (StatusCode::INTERNAL_SERVER_ERROR, "the server is built wrong").into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl MissingGate {
    fn tell(self) {
        static SAID: Once = Once::new();
        #[cfg(feature = "tracing")]
        if crate::warn::has_log() {
            crate::log::without_gate(&self);
            return;
        }
        SAID.call_once(|| crate::warn::warn(format_args!("{self}")));
    }
}
