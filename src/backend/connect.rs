//! Connections of HTTP clients, encrypted or not: how they are made, and kept.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::Uri;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tower_service::Service;

use super::reach::{Reach, Resolver};
use super::tls::Trust;

/// How long a connection may take, with its TLS handshake.
const CONNECT_TIME_LIMIT: Duration = Duration::from_secs(5);
/// Connections that are kept open to one host while nobody asks, and for how
/// long: less than a node does, so that no request meets one that it closes
/// (LNbits after 5 s).
const MAX_IDLE: usize = 8;
const MAX_IDLE_TIME: Duration = Duration::from_secs(4);

/// A client that keeps connections for a while.
pub(crate) fn client<B>(trust: Trust, reach: Reach) -> Client<Connector, B>
where
    B: http_body::Body<Data = Bytes> + Send,
{
    let mut connector = HttpConnector::new_with_resolver(reach.resolver());
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(CONNECT_TIME_LIMIT));
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(trust.into_config())
        .https_or_http()
        .enable_http1()
        .wrap_connector(connector);
    Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_max_idle_per_host(MAX_IDLE)
        .pool_idle_timeout(MAX_IDLE_TIME)
        .build(Connector(connector))
}

/// Connects in bounded time: the client goes on with a connection whose request
/// was served by another one meanwhile, and nobody would end it.
#[derive(Clone)]
pub(crate) struct Connector(Encrypted);

type Encrypted = HttpsConnector<HttpConnector<Resolver>>;

impl Service<Uri> for Connector {
    type Response = <Encrypted as Service<Uri>>::Response;
    type Error = <Encrypted as Service<Uri>>::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = tokio::time::timeout(CONNECT_TIME_LIMIT, self.0.call(uri));
        let too_slow = || io::Error::new(io::ErrorKind::TimedOut, "no connection in time");
        Box::pin(async move { connecting.await.map_err(|_| too_slow())? })
    }
}
