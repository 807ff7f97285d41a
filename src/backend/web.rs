//! HTTP for what is no backend: the providers and gateways of payment methods.

use std::time::Duration;

use http::{HeaderName, HeaderValue, Uri};
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::BackendError;
use super::http::{Ask, Http, Reach};
use super::tls::Trust;

/// How long an answer may take: less than a checkout waits.
const TIME_LIMIT: Duration = Duration::from_secs(8);

/// A client of whatever address the operator names. Clones share their connections.
#[derive(Clone, Debug)]
pub(crate) struct Web(Http);

impl Web {
    pub(crate) fn new() -> Self {
        Self(Http::new(Trust::Public, Reach::Any))
    }

    /// Posts this JSON, byte for byte, and reads the JSON of a successful answer.
    pub(crate) async fn post_json<T: DeserializeOwned>(
        &self,
        uri: Uri,
        headers: impl IntoIterator<Item = (HeaderName, HeaderValue)>,
        body: &RawValue,
    ) -> Result<T, BackendError> {
        let ask = Ask::post(uri).json(&body);
        let ask = headers.into_iter().fold(ask, |ask, (name, value)| ask.header(name, value));
        self.0.send(ask, TIME_LIMIT).await?.json()
    }
}
