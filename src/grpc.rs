//! A gate before a service of tonic.

use tonic::server::NamedService;

use crate::service::L402;

/// A service behind a gate keeps its name, so that
/// `Server::builder().add_service(..)` takes it, and other wrappers around it do.
impl<S: NamedService> NamedService for L402<S> {
    const NAME: &'static str = S::NAME;
}
