//! The routes of a checkout, ready for axum.

use axum::Router;
use axum::extract::{DefaultBodyLimit, Path};
use axum::routing::any;
use axum_core::body::Body;
use bytes::Bytes;
use http::Request;
use http::request::Parts;

use super::counter::Checkout;

/// Longest body that is read, in bytes: what a webhook may have.
const MAX_BODY: usize = 256 * 1024;

impl Checkout {
    /// The routes, to be nested where `base_url` says: `/payment-request`,
    /// `/status` and `/webhooks/{method}`. See [`Checkout`] for an example. They
    /// stand outside of every gate, and need the client's address as gates do: see
    /// [`PeerAddr`](crate::PeerAddr).
    #[cfg_attr(docsrs, doc(cfg(feature = "axum")))]
    pub fn router<S: Clone + Send + Sync + 'static>(&self) -> Router<S> {
        let (asked, status, webhook) = (self.clone(), self.clone(), self.clone());
        let payment_request = async move |head: Parts, body: Bytes| {
            asked.handle_payment_request(Request::from_parts(head, body)).await.map(Body::from)
        };
        let status = async move |head: Parts| {
            status.handle_status(Request::from_parts(head, Bytes::new())).await.map(Body::from)
        };
        let webhook = async move |Path(method): Path<String>, head: Parts, body: Bytes| {
            webhook.handle_webhook(&method, Request::from_parts(head, body)).await.map(Body::from)
        };
        Router::new()
            .route("/payment-request", any(payment_request))
            .route("/status", any(status))
            .route("/webhooks/{method}", any(webhook))
            .layer(DefaultBodyLimit::max(MAX_BODY))
    }
}
