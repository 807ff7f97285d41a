//! The HTTP client beneath [`Client`](super::Client): one request, one answer of
//! bounded size, in bounded time. It follows no redirect and keeps no cookie.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{HeaderValue, USER_AGENT};
use http::{Request, Response, response};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client as HttpClient;
use tower_service::Service;

use crate::backend::{Connector, Reach, Trust, http_client};

use super::body::Body;
use super::challenges;
use super::error::{Error, ErrorKind};
use super::service::AskingBody;

/// What is read of the body of an answer that asks for a payment, in bytes, and
/// how long that may take. What is longer is left.
const MAX_ASKING: usize = 64 * 1024;
const ASKING_TIME_LIMIT: Duration = Duration::from_secs(5);

#[derive(Clone)]
pub(super) struct Transport {
    http: HttpClient<Connector, Body>,
    pub(super) max_answer: usize,
    pub(super) time_limit: Duration,
}

impl Transport {
    pub(super) fn new() -> Self {
        Self {
            http: http_client(Trust::Public, Reach::Any),
            max_answer: 16 * 1024 * 1024,
            time_limit: Duration::from_secs(30),
        }
    }

    async fn exchange(self, mut request: Request<Body>) -> Result<Response<Bytes>, Error> {
        let agent = HeaderValue::from_static(concat!("l402/", env!("CARGO_PKG_VERSION")));
        request.headers_mut().entry(USER_AGENT).or_insert(agent);
        let response = self.http.request(request).await.map_err(|cause| {
            let what = if cause.is_connect() { "the server was not reached" } else { "the answer broke off" };
            Error::new(ErrorKind::Transport, what).with_source(cause)
        })?;
        let (head, body) = response.into_parts();
        if challenges::asks(&head) {
            return Ok(asking(head, body).await);
        }
        let body = Limited::new(body, self.max_answer).collect().await.map_err(|cause| {
            if cause.is::<LengthLimitError>() {
                let what = format!("the answer is longer than {} bytes", self.max_answer);
                Error::new(ErrorKind::TooLong, what)
            } else {
                Error::new(ErrorKind::Transport, "the answer broke off").with_source(cause)
            }
        })?;
        Ok(Response::from_parts(head, body.to_bytes()))
    }
}

/// Reads what stands beside a challenge, for a quote to show it.
async fn asking(mut head: response::Parts, body: Incoming) -> Response<Bytes> {
    let read = tokio::time::timeout(ASKING_TIME_LIMIT, Limited::new(body, MAX_ASKING).collect()).await;
    if let Ok(Ok(body)) = read {
        head.extensions.insert(AskingBody(body.to_bytes()));
    }
    Response::from_parts(head, Bytes::new())
}

impl Service<Request<Body>> for Transport {
    type Response = Response<Bytes>;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Bytes>, Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            let time_limit = this.time_limit;
            tokio::time::timeout(time_limit, this.exchange(request)).await.unwrap_or_else(|_| {
                let what = format!("no answer within {} s", time_limit.as_secs());
                Err(Error::new(ErrorKind::Timeout, what))
            })
        })
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport").finish_non_exhaustive()
    }
}
