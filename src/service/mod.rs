//! The gate as tower middleware.
//!
//! ```text
//! request -> preflight? -> Gate::judge -> admitted: inner.call -> settle -> response
//!                                      -> refused:  response
//!                                      -> payable:  Gate::sell, boxed -> response
//!                                      -> metered:  Gate::decide, boxed, then one of these
//! ```
//!
//! Nothing is asked of the inner service but `Clone`; its errors and its body
//! pass through, and the middleware adds no error of its own.

mod body;
mod cut;
mod future;
mod layer;
#[expect(clippy::module_inception, reason = "the tower quartet: layer, service, future, body")]
mod service;

pub use body::Body;
pub use future::ResponseFuture;
pub use layer::L402Layer;
pub use service::L402;
