//! The client that is all there is to it: a URL in, an answer out, paid for.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, Uri};
use tower_layer::Layer as _;
use tower_service::Service as _;

use super::body::Body;
use super::error::{Error, ErrorKind};
use super::layer::L402ClientLayer;
use super::origin::Origin;
use super::payer::Payer;
use super::receipt::Receipt;
use super::redirect;
use super::service::{L402Client, MaxMsat};
use super::transport::Transport;

/// Most redirects that are followed.
const MAX_REDIRECTS: usize = 5;

/// An HTTP client that pays what servers ask, within the payer's budget. Clones
/// share connections, tokens and budget.
///
/// It speaks HTTP/1.1, over TLS with the roots that browsers trust, follows
/// redirects within an origin, keeps no cookie, and reads whole answers of
/// bounded size in bounded time. For anything else there is
/// [`L402ClientLayer`] around an HTTP client of your own.
#[derive(Clone, Debug)]
#[must_use]
pub struct Client {
    payer: Payer,
    transport: Transport,
}

impl Client {
    /// A client that pays with this wallet, or by this [`Payer`].
    pub fn new(payer: impl Into<Payer>) -> Self {
        Self { payer: payer.into(), transport: Transport::new() }
    }

    /// The longest body of an answer, in bytes: 16 MiB unless set.
    pub fn with_max_answer(mut self, bytes: usize) -> Self {
        self.transport.max_answer = bytes;
        self
    }

    /// How long an answer may take, from the request to the end of its body: 30
    /// seconds unless set. A payment takes its own time, a minute and a
    /// quarter at most.
    pub fn with_time_limit(mut self, time_limit: Duration) -> Self {
        self.transport.time_limit = time_limit;
        self
    }

    /// Who pays.
    pub fn payer(&self) -> &Payer {
        &self.payer
    }

    /// Gets a URL, and pays for it where the server asks: once at most, however
    /// the server redirects.
    ///
    /// # Errors
    /// Why there is no answer, or why it was not paid for. An answer is one
    /// whatever its status.
    ///
    /// # Cancel safety
    /// Dropped, a payment that was begun is brought to its end, and its token
    /// kept for the next request.
    pub async fn get(&self, url: impl Into<Service>) -> Result<Response<Bytes>, Error> {
        self.request(url.into().request()?).await
    }

    /// Sends a request with a whole URL, and pays for it where the server asks:
    /// once at most, however the server redirects.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    ///
    /// # Cancel safety
    /// As [`get`](Self::get).
    pub async fn request(&self, request: Request<impl Into<Body>>) -> Result<Response<Bytes>, Error> {
        self.follow(request.map(Into::into), u64::MAX).await
    }

    /// Buys from a service: gets it, and spends no more than this on it, in
    /// msat with the fee, however much the budget would allow. It pays once at
    /// most, and nothing where a token is held. Where the wallet does not [limit
    /// its fees](super::Wallet::limits_fees), the fee may go beyond it.
    ///
    /// # Errors
    /// As [`get`](Self::get). [`Error::receipt`] says what was paid all the same.
    ///
    /// # Cancel safety
    /// As [`get`](Self::get).
    pub async fn pay(&self, service: impl Into<Service>, max_msat: u64) -> Result<Paid, Error> {
        self.pay_request(service.into().request()?, max_msat).await
    }

    /// Sends a request with a whole URL, and spends no more than this on it, as
    /// [`pay`](Self::pay) does.
    ///
    /// # Errors
    /// As [`pay`](Self::pay).
    ///
    /// # Cancel safety
    /// As [`get`](Self::get).
    pub async fn pay_request(&self, request: Request<impl Into<Body>>, max_msat: u64) -> Result<Paid, Error> {
        let response = self.follow(request.map(Into::into), max_msat).await?;
        let receipt = response.extensions().get().cloned();
        Ok(Paid { response, receipt })
    }

    /// Sends a request, and those that its answers lead to within the origin.
    async fn follow(&self, mut request: Request<Body>, max_msat: u64) -> Result<Response<Bytes>, Error> {
        let origin = Origin::of(request.uri()).ok_or_else(|| no_url(&request.uri().to_string()))?;
        let mut service: L402Client<Transport> =
            L402ClientLayer::new(self.payer.clone()).layer(self.transport.clone());
        let mut paid: Option<Receipt> = None;
        for _ in 0..=MAX_REDIRECTS {
            // One payment a call: a server could lead on from each to the next.
            let left = if paid.is_some() { 0 } else { max_msat };
            request.extensions_mut().insert(MaxMsat(left));
            let (head, body) = request.into_parts();
            let (method, uri, headers) = (head.method.clone(), head.uri.clone(), head.headers.clone());
            let (extensions, again) = (head.extensions.clone(), body.try_clone());
            let sent = service.call(Request::from_parts(head, body)).await;
            let mut response = sent.map_err(|error| error.with_receipt(paid.clone()))?;
            match response.extensions().get::<Receipt>() {
                Some(receipt) => paid = Some(receipt.clone()),
                None => {
                    paid.clone().map(|receipt| response.extensions_mut().insert(receipt));
                }
            }
            let target = redirect::target(&origin, &uri, &response);
            let Some(target) = target.map_err(|error| error.with_receipt(paid.clone()))? else {
                return Ok(response);
            };
            let mut next = Request::new(Body::default());
            (*next.method_mut(), *next.uri_mut()) = (method, target);
            (*next.headers_mut(), *next.extensions_mut()) = (headers, extensions);
            if !redirect::becomes_get(&response, &mut next) {
                *next.body_mut() = again.ok_or_else(|| {
                    let what = "a redirect asks for the request's body again, which was sent and is gone";
                    Error::new(ErrorKind::Body, what).with_receipt(paid.clone())
                })?;
            }
            request = next;
        }
        let what = format!("{origin} redirects more than {MAX_REDIRECTS} times");
        Err(Error::new(ErrorKind::TooManyRedirects, what).with_receipt(paid))
    }
}

/// What [`Client::pay`] or [`Client::pay_request`] bought.
#[derive(Debug)]
#[non_exhaustive]
pub struct Paid {
    /// The answer, whatever its status.
    pub response: Response<Bytes>,
    /// What was paid for it; `None` where it was free, or a token was held.
    pub receipt: Option<Receipt>,
}

/// Something that is sold: by its URL.
#[derive(Clone, PartialEq, Eq)]
pub struct Service {
    url: String,
}

impl Service {
    fn request(&self) -> Result<Request<Body>, Error> {
        let error = || no_url(&self.url);
        // What is behind a `#` is for the reader of the answer.
        let url = self.url.trim().split('#').next().unwrap_or_default();
        let uri = url.parse::<Uri>().map_err(|_| error())?;
        Origin::of(&uri).ok_or_else(error)?;
        let mut request = Request::new(Body::default());
        *request.uri_mut() = uri;
        Ok(request)
    }
}

impl From<&str> for Service {
    fn from(url: &str) -> Self {
        Self { url: url.to_owned() }
    }
}

impl From<String> for Service {
    fn from(url: String) -> Self {
        Self { url }
    }
}

impl From<&String> for Service {
    fn from(url: &String) -> Self {
        Self { url: url.clone() }
    }
}

impl From<Uri> for Service {
    fn from(url: Uri) -> Self {
        Self { url: url.to_string() }
    }
}

/// Its query may hold a secret.
impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Service").field(&self.url.split(['?', '#']).next().unwrap_or_default()).finish()
    }
}

/// Not shown where it may hold a password.
fn no_url(url: &str) -> Error {
    let shown = url.split(['?', '#']).next().filter(|url| !url.contains('@'));
    let what = format!(
        "{} is no URL to ask: write it as in `https://api.example/forecast`, without a name or password",
        shown.map_or_else(|| "it".to_owned(), |url| format!("`{url}`"))
    );
    Error::new(ErrorKind::Origin, what)
}
