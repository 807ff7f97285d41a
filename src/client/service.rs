use std::future::poll_fn;
use std::mem;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::request::Parts;
use http::{Request, Response, response};
use tokio::sync::OwnedMutexGuard;
use tokio::time::timeout;
use tower_service::Service;

use crate::credential;

use super::body::{Body, Replay};
use super::challenges;
use super::error::{BoxError, Error, ErrorKind};
use super::known::Held;
use super::origin::Origin;
use super::payer::{Payer, in_time};
use super::purchase::{Obtained, Wanted};
use super::receipt::Receipt;
use super::token;

/// How long others at the origin wait for the answer to what the buyer of a
/// token does first with it.
const FIRST_USE: Duration = Duration::from_secs(5);

/// What one request may cost, in its extensions: in msat, with the fee.
#[derive(Clone, Copy, Debug)]
pub(super) struct MaxMsat(pub(super) u64);

/// The body of an answer that asks for a payment, in its extensions.
#[derive(Clone, Debug)]
pub(super) struct AskingBody(pub(super) Bytes);

/// An HTTP client that pays what servers ask:
/// [`L402ClientLayer`](super::L402ClientLayer) makes it.
///
/// - A request to a path that a held token opened before is sent with that
///   token; any other is sent as it is.
/// - An answer that asks for a payment (HTTP 402, or over gRPC a status 13 with
///   an L402 challenge) is answered: with a held token of the same scope,
///   or with one that is bought. Then the request is sent once more, with the
///   same method, headers and body. What was paid stands as a
///   [`Receipt`](super::Receipt) in the extensions of the response.
/// - Any other answer is the caller's, 401 among them: it keeps the token. One
///   that is good for a single request is given up with an answer below 400.
/// - A request that has an L402 credential of its own is sent as it is, and so
///   is its answer handed on: nothing is paid. Authorization of other schemes
///   stays, beside ours.
/// - A token goes to the origin that sold it and to no other.
#[derive(Clone, Debug)]
pub struct L402Client<S> {
    inner: S,
    payer: Payer,
    origin: Option<Origin>,
}

impl<S> L402Client<S> {
    pub(super) fn new(inner: S, payer: Payer, origin: Option<Origin>) -> Self {
        Self { inner, payer, origin }
    }

    /// Whom a request is for; `None` where it does not say and nobody else does.
    fn origin_of(&self, head: &Parts) -> Result<Option<Origin>, Error> {
        let said = Origin::of(&head.uri);
        match &self.origin {
            // A path says nothing; what is said and cannot be read is another's.
            Some(origin) if said.as_ref() == Some(origin) || head.uri.authority().is_none() => {
                Ok(Some(origin.clone()))
            }
            Some(origin) => {
                let what = format!("the request is for another origin than its client, which is of {origin}");
                Err(Error::new(ErrorKind::Origin, what))
            }
            None => Ok(said),
        }
    }
}

impl<S, B, R> Service<Request<B>> for L402Client<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: http_body::Body<Data = Bytes> + From<Body> + Send + 'static,
    B::Error: Into<BoxError>,
    R: Send + 'static,
{
    type Response = Response<R>;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<R>, Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx).map_err(|error| Error::of_service(error.into()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (head, body) = request.into_parts();
        let origin = self.origin_of(&head);
        let payer = self.payer.clone();
        // The service that was polled ready goes with the request.
        let fresh = self.inner.clone();
        let mut ready = mem::replace(&mut self.inner, fresh);
        if credential::is_presented(&head.headers) {
            let response = ready.call(Request::from_parts(head, body));
            return Box::pin(async { response.await.map_err(|error| Error::of_service(error.into())) });
        }
        let (body, replay) = Body::new(body).record(payer.policy.replay_limit);
        Box::pin(
            async move { Exchange { service: ready, payer, origin: origin?, head, replay }.run(body).await },
        )
    }
}

/// One request, until the answer that is the caller's.
struct Exchange<S> {
    service: S,
    payer: Payer,
    origin: Option<Origin>,
    head: Parts,
    replay: Replay,
}

impl<S> Exchange<S> {
    async fn run<B, R>(mut self, body: Body) -> Result<Response<R>, Error>
    where
        S: Service<Request<B>, Response = Response<R>>,
        S::Error: Into<BoxError>,
        B: From<Body>,
    {
        let held = match &self.origin {
            Some(origin) => self.payer.known_token(origin, self.head.uri.path()).await,
            None => None,
        };
        let mut sent = held.map(|held| Obtained { held, claim: None, bought: None });
        let mut refused = Vec::new();
        let mut body = body;
        loop {
            let bought = sent.as_mut().and_then(|obtained| obtained.bought.take());
            let receipt = bought.as_ref().map(|bought| bought.receipt.clone());
            let failed = |error: S::Error| Error::of_service(error.into()).with_receipt(receipt.clone());
            poll_fn(|cx| self.service.poll_ready(cx)).await.map_err(failed)?;
            let call = self.service.call(self.request(body, sent.as_ref()));
            let answered = match bought.and_then(|bought| bought.flight) {
                Some(flight) => first_use(call, flight).await,
                None => call.await,
            };
            let (mut answer, rest) = answered.map_err(failed)?.into_parts();
            if !challenges::asks(&answer) {
                if let (Some(sent), Some(origin)) = (&sent, &self.origin) {
                    self.payer.used(origin, self.head.uri.path(), sent, &answer).await;
                }
                if let Some(receipt) = receipt {
                    answer.extensions.insert(receipt);
                }
                return Ok(Response::from_parts(answer, rest));
            }
            drop(rest);
            if let Some(receipt) = receipt {
                return Err(paid_again(receipt));
            }
            refused.extend(sent.take().map(|obtained| obtained.held));
            let wanted = self.wanted(&answer, refused.clone())?;
            sent = Some(self.payer.obtain(wanted).await?);
            body = self.replay.body();
        }
    }

    /// What the server asks for, of a request that can be sent again.
    fn wanted(&self, answer: &response::Parts, refused: Vec<Arc<Held>>) -> Result<Wanted, Error> {
        let origin = self.origin.clone().ok_or_else(|| {
            let what = "the request names no origin, so nobody can tell whose its token is: use a whole URL, \
                        or name it with `L402ClientLayer::with_origin`";
            Error::new(ErrorKind::Origin, what)
        })?;
        if !self.replay.hold() {
            let what = "the request's body was sent and cannot be sent again, so nothing is paid: \
                        give one that is whole in memory, or raise the replay limit";
            return Err(Error::new(ErrorKind::Body, what));
        }
        Ok(Wanted {
            origin,
            path: self.head.uri.path().to_owned(),
            place: token::place(&self.head.uri),
            challenges: challenges::read(answer),
            limit_msat: self.head.extensions.get().map_or(u64::MAX, |MaxMsat(msat)| *msat),
            refused,
            body: answer.extensions.get::<AskingBody>().map(|AskingBody(bytes)| bytes.clone()),
        })
    }

    fn request<B: From<Body>>(&self, body: Body, sent: Option<&Obtained>) -> Request<B> {
        let mut request = Request::from_parts(self.head.clone(), B::from(body));
        if let Some(obtained) = sent {
            request.headers_mut().append(AUTHORIZATION, obtained.held.credential.clone());
        }
        request
    }
}

/// The answer to the first use of a token. Who waits to buy at the origin goes on
/// then: sooner, they could use up what was bought.
async fn first_use<F: Future>(call: F, flight: OwnedMutexGuard<()>) -> F::Output {
    let mut call = pin!(call);
    if let Ok(answer) = timeout(FIRST_USE, &mut call).await {
        return answer;
    }
    drop(flight);
    call.await
}

fn paid_again(receipt: Receipt) -> Error {
    let what = format!(
        "{} asks for a payment again, right after one: nothing more is paid, and the token is kept",
        receipt.origin
    );
    Error::new(ErrorKind::PaidAgain, what).with_receipt(Some(receipt))
}

/// Whether the answer is what was paid for, as far as its head tells.
fn is_success(answer: &response::Parts) -> bool {
    let code = answer.headers.get("grpc-status");
    answer.status.as_u16() < 400 && code.is_none_or(|code| code.as_bytes() == b"0")
}

impl Payer {
    /// The token that opened this path before.
    async fn known_token(&self, origin: &Origin, path: &str) -> Option<Arc<Held>> {
        let (mut held, is_loaded) = self.known.token(origin, path);
        if !is_loaded {
            // Where the store cannot be read, the request may be free all the same.
            if let Ok(purchases) = in_time(self.store.of_origin(origin.as_str())).await {
                self.known.load(origin, &purchases);
                held = self.known.token(origin, path).0;
            }
        }
        held.filter(|held| held.is_valid(|| self.now()))
    }

    /// Remembers what a token opened, or that it is used up.
    async fn used(&self, origin: &Origin, path: &str, sent: &Obtained, answer: &response::Parts) {
        if !sent.held.is_single_use {
            self.known.learn(origin, path, &sent.held);
        } else if is_success(answer) {
            // Where that fails, or it was used up by another answer, it is refused the
            // next time, and discarded then.
            let _ = in_time(self.store.discard(sent.held.payment_hash)).await;
        }
    }
}
