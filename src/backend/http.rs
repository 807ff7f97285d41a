//! The HTTP client beneath the backends: one request, one answer of bounded
//! size, in bounded time. It follows no redirect and keeps no cookie.
//!
//! TLS is checked against the roots that browsers trust, or against the
//! certificates that the operator pins. There is no way to accept any.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderName, HeaderValue, USER_AGENT};
use http::{HeaderMap, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper_util::client::legacy::{Client, Error as ClientError};
use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use super::connect::{self, Connector};
pub(crate) use super::reach::Reach;
use super::tls::Trust;
use super::{BackendError, BackendErrorKind};

/// Longest answer that is read, in bytes.
const MAX_ANSWER: usize = 256 * 1024;

/// A client of one trust and reach. Clones share their connections.
#[derive(Clone)]
pub(crate) struct Http {
    client: Client<Connector, Full<Bytes>>,
    reach: Reach,
}

impl Http {
    pub(crate) fn new(trust: Trust, reach: Reach) -> Self {
        Self { client: connect::client(trust, reach), reach }
    }

    /// Sends a request, and reads the whole answer within `time_limit`.
    pub(crate) async fn send(&self, ask: Ask, time_limit: Duration) -> Result<Answer, BackendError> {
        self.send_until(ask, time_limit, None).await
    }

    /// Sends a request, and reads the first line of the answer: that of a stream
    /// of lines, which may stay open.
    pub(super) async fn send_for_line(&self, ask: Ask, time_limit: Duration) -> Result<Answer, BackendError> {
        self.send_until(ask, time_limit, Some(b'\n')).await
    }

    async fn send_until(
        &self,
        ask: Ask,
        time_limit: Duration,
        end: Option<u8>,
    ) -> Result<Answer, BackendError> {
        self.reach.check(&ask.uri).map_err(BackendError::connect)?;
        let sent = tokio::time::timeout(time_limit, self.exchange(ask.into_request(), end));
        sent.await.unwrap_or_else(|_| Err(BackendError::timeout()))
    }

    async fn exchange(&self, request: Request<Full<Bytes>>, end: Option<u8>) -> Result<Answer, BackendError> {
        let response = self.client.request(request).await.map_err(failed)?;
        let (head, body) = response.into_parts();
        let mut body = Limited::new(body, MAX_ANSWER);
        let mut read = Zeroizing::new(Vec::new());
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|cause| {
                let is_long = cause.is::<LengthLimitError>();
                let what = if is_long { "answer is too long" } else { "answer breaks off" };
                BackendError::new(BackendErrorKind::InvalidResponse, what)
            })?;
            let Ok(data) = frame.into_data() else { continue };
            let at = end.and_then(|end| memchr::memchr(end, &data));
            read.extend_from_slice(&data[..at.unwrap_or(data.len())]);
            if at.is_some() {
                break;
            }
        }
        Ok(Answer { status: head.status, headers: head.headers, body: read })
    }
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http").field("reach", &self.reach).finish_non_exhaustive()
    }
}

fn failed(error: ClientError) -> BackendError {
    let kind = if error.is_connect() { BackendErrorKind::Connect } else { BackendErrorKind::InvalidResponse };
    BackendError::new(kind, Failure(error))
}

/// What kept a request from its answer, in one line. The library's errors hold
/// nothing of request or answer.
#[derive(Debug)]
struct Failure(ClientError);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut last: &dyn StdError = &self.0;
        while let Some(cause) = last.source() {
            last = cause;
        }
        write!(f, "{last}")
    }
}

impl StdError for Failure {}

/// A request to a backend.
pub(crate) struct Ask {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
}

impl Ask {
    pub(crate) fn get(uri: Uri) -> Self {
        Self::new(Method::GET, uri)
    }

    pub(crate) fn post(uri: Uri) -> Self {
        Self::new(Method::POST, uri)
    }

    fn new(method: Method, uri: Uri) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("l402/", env!("CARGO_PKG_VERSION"))));
        Self { method, uri, headers, body: Bytes::new() }
    }

    pub(crate) fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    pub(crate) fn json(mut self, body: &impl Serialize) -> Self {
        self.body = serde_json::to_vec(body).expect("strings and numbers serialize").into();
        self.header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
    }

    #[cfg(feature = "gateway")]
    pub(crate) fn body(&self) -> &[u8] {
        &self.body
    }

    /// The body of an HTML form.
    pub(crate) fn form(mut self, fields: &[(&str, &str)]) -> Self {
        let mut body = String::new();
        for (name, value) in fields {
            let separator = if body.is_empty() { "" } else { "&" };
            body.extend([separator, name, "="]);
            percent_encode(value, &mut body);
        }
        self.body = body.into();
        self.header(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"))
    }

    fn into_request(self) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(self.body));
        *request.method_mut() = self.method;
        *request.uri_mut() = self.uri;
        *request.headers_mut() = self.headers;
        request
    }
}

/// Writes every byte of UTF-8 but the unreserved ones (RFC 3986, 2.3) as `%XX`.
fn percent_encode(text: &str, to: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            to.push(byte.into());
        } else {
            to.push('%');
            to.extend(
                [byte >> 4, byte & 15].map(|digit| char::from(b"0123456789ABCDEF"[usize::from(digit)])),
            );
        }
    }
}

/// The answer of a backend. Several name the preimage before the payment, so
/// that nothing of it is printed.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    headers: HeaderMap,
    body: Zeroizing<Vec<u8>>,
}

impl Answer {
    /// Reads the JSON of a successful answer; any other is an error of the
    /// kind that its status tells.
    pub(crate) fn json<T: DeserializeOwned>(&self) -> Result<T, BackendError> {
        if !self.status.is_success() {
            return Err(self.error());
        }
        self.body_as()
    }

    /// Reads the JSON of the body, whatever the status.
    pub(crate) fn body_as<T: DeserializeOwned>(&self) -> Result<T, BackendError> {
        serde_json::from_slice(&self.body).map_err(|cause| {
            // Its text would quote the answer.
            let what = match cause.classify() {
                serde_json::error::Category::Data => "answer has not the fields that were expected",
                _ => "answer is not JSON",
            };
            BackendError::new(BackendErrorKind::InvalidResponse, what)
        })
    }

    /// Whether the body is this text.
    pub(crate) fn is_text(&self, text: &str) -> bool {
        self.body.trim_ascii() == text.as_bytes()
    }

    /// The error that the status tells.
    pub(crate) fn error(&self) -> BackendError {
        let kind = match self.status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => BackendErrorKind::Auth,
            StatusCode::TOO_MANY_REQUESTS => BackendErrorKind::rate_limited(&self.headers),
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => {
                let what = format!("status {}: is the backend's address right?", self.status.as_u16());
                return BackendError::new(BackendErrorKind::InvalidResponse, what);
            }
            status if status.is_server_error() => BackendErrorKind::Backend,
            status if status.is_client_error() => BackendErrorKind::Rejected,
            status if status.is_redirection() => {
                let what = format!("status {}: redirects are not followed", status.as_u16());
                return BackendError::new(BackendErrorKind::InvalidResponse, what);
            }
            _ => BackendErrorKind::InvalidResponse,
        };
        BackendError::new(kind, format!("status {}", self.status.as_u16()))
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer").field("status", &self.status).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_keeps_every_character() {
        let fields = [("a", "x-._~9"), ("b", " &=+%/?#"), ("c", ""), ("d", "é⚡🦀\n\0")];
        let ask = Ask::post("http://node/".parse().unwrap()).form(&fields);
        assert_eq!(
            ask.body,
            "a=x-._~9&b=%20%26%3D%2B%25%2F%3F%23&c=&d=%C3%A9%E2%9A%A1%F0%9F%A6%80%0A%00".as_bytes()
        );
        assert_eq!(ask.headers[CONTENT_TYPE], "application/x-www-form-urlencoded");
    }
}
