//! The payer as tower middleware.

use tower_layer::Layer;

use super::error::Error;
use super::origin::Origin;
use super::payer::Payer;
use super::service::L402Client;

/// Pays for the requests of an HTTP client that is a tower service:
/// [`L402Client`] says what it does with each.
///
/// The requests carry whole URLs, from which the payer takes the origin. Where
/// they carry paths alone, [`with_origin`](Self::with_origin) names it.
///
/// # hyper
///
/// The body of the requests is [`Body`](super::Body), or a type of yours that
/// is made `From` it.
///
/// ```
/// # #[cfg(feature = "dev")] {
/// use hyper_util::client::legacy::Client;
/// use hyper_util::rt::TokioExecutor;
/// use l402::client::{Body, L402ClientLayer};
/// use tower::Layer;
///
/// # let wallet = l402::DevBackend::new();
/// let http: Client<_, Body> = Client::builder(TokioExecutor::new()).build_http();
/// let paying = L402ClientLayer::new(wallet).layer(http);
/// # }
/// ```
///
/// # reqwest
///
/// Its client has a request type of its own, which takes the place of ours by a
/// closure. Turn its redirects off: it would follow one, to another host even,
/// before anybody looks at it.
///
/// ```ignore
/// let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build()?;
/// let http = tower::service_fn(move |request: http::Request<Body>| {
///     let http = http.clone();
///     async move {
///         let request = reqwest::Request::try_from(request.map(reqwest::Body::wrap))?;
///         http.execute(request).await.map(http::Response::<reqwest::Body>::from)
///     }
/// });
/// let paying = L402ClientLayer::new(wallet).layer(http);
/// ```
///
/// # tonic
///
/// With the feature `tonic`. Channels are asked for paths, so name the origin.
///
/// ```ignore
/// let channel = Channel::from_static("https://api.example").connect().await?;
/// let layer = L402ClientLayer::new(wallet).with_origin("https://api.example")?;
/// let client = WeatherClient::new(layer.layer(channel));
/// ```
///
/// A call that fails has an [`Error`] as the source of its `Status`.
#[derive(Clone, Debug)]
#[must_use]
pub struct L402ClientLayer {
    payer: Payer,
    origin: Option<Origin>,
}

impl L402ClientLayer {
    /// A layer that pays with this wallet, or by this payer.
    pub fn new(payer: impl Into<Payer>) -> Self {
        Self { payer: payer.into(), origin: None }
    }

    /// For a service that sends every request to this origin, as in
    /// `https://api.example`, whatever their URLs say. One that says another
    /// origin is an error.
    ///
    /// # Errors
    /// The text is no origin.
    pub fn with_origin(mut self, origin: &str) -> Result<Self, Error> {
        self.origin = Some(Origin::parse(origin)?);
        Ok(self)
    }
}

impl<S> Layer<S> for L402ClientLayer {
    type Service = L402Client<S>;

    fn layer(&self, inner: S) -> L402Client<S> {
        L402Client::new(inner, self.payer.clone(), self.origin.clone())
    }
}
