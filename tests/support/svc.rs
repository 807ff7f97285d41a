//! What the tests of the tower service share: a shop with a fixed clock, and
//! an inner service that counts its calls.

#![allow(dead_code, unreachable_pub, missing_docs)]

use std::convert::Infallible;
use std::future::{Future, Ready, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::{HeaderValue, Request, Response};
use l402::macaroon::Macaroon;
use l402::{
    Access, Challenge, DevBackend, FixedClock, Gate, Grant, Issuer, KeyRing, L402, L402Layer, Ledger,
    MemoryLedger, Network, Offer, PaymentHash, Preimage, Price, Refusal, RootKey,
};
use tower::{Layer, Service};

/// When every test begins.
pub const NOW: u64 = 1_900_000_000;

/// An issuer with everything a test turns.
pub struct Shop {
    pub clock: FixedClock,
    pub wallet: DevBackend,
    pub ledger: Arc<dyn Ledger>,
    pub issuer: Issuer,
}

impl Shop {
    pub fn new() -> Self {
        Self::with_ledger(MemoryLedger::new())
    }

    pub fn with_ledger(ledger: impl Ledger + 'static) -> Self {
        Self::with_key([7; 32], ledger)
    }

    pub fn with_key(key: [u8; 32], ledger: impl Ledger + 'static) -> Self {
        let clock = FixedClock::at(NOW);
        let wallet = DevBackend::with_clock(clock.clone());
        let ledger: Arc<dyn Ledger> = Arc::new(ledger);
        let issuer = Issuer::builder(KeyRing::new(RootKey::new(key).unwrap()), wallet.clone())
            // Its clock stands still, and more is refused than a server sells at once.
            .with_server_challenges(u64::MAX, l402::MINUTE)
            .with_network(Network::Regtest)
            .with_ledger(ledger.clone())
            .with_clock(clock.clone())
            .build()
            .unwrap();
        Self { clock, wallet, ledger, issuer }
    }

    /// A gate of this access for 21 sat.
    pub fn gate(&self, service: &str, access: Access) -> Gate {
        Gate::new(&self.issuer, service, Offer::new(Price::sat(21), access)).unwrap()
    }

    /// Pays the challenge of a 402.
    pub fn pay<B>(&self, refused: &Response<B>) -> Paid {
        let challenge: Challenge = refused.headers()[WWW_AUTHENTICATE].to_str().unwrap().parse().unwrap();
        let preimage = self.wallet.pay(challenge.invoice()).unwrap();
        Paid { token: challenge.token().clone(), preimage }
    }

    /// How many units of a token are spent.
    pub async fn used(&self, hash: PaymentHash) -> u64 {
        self.issuer.account(hash).await.unwrap().map_or(0, |account| account.used)
    }

    /// How many reservations are open.
    pub async fn open(&self) -> usize {
        self.ledger.open_reservations().await.unwrap().len()
    }
}

/// A token and its preimage.
#[derive(Clone)]
pub struct Paid {
    pub token: Macaroon<'static>,
    pub preimage: Preimage,
}

impl Paid {
    /// Buys a token from this gate.
    pub async fn buy(shop: &Shop, gate: &Gate) -> Self {
        let mut head = request(None).into_parts().0;
        shop.pay(&gate.admit(&mut head).await.unwrap_err())
    }

    pub fn credential(&self) -> HeaderValue {
        self.token.credential(&self.preimage)
    }

    pub fn hash(&self) -> PaymentHash {
        self.preimage.payment_hash()
    }

    /// The same token with one more caveat.
    pub fn with_caveat(&self, caveat: &str) -> Self {
        Self { token: self.token.attenuate(caveat).unwrap(), preimage: self.preimage.clone() }
    }
}

/// A request with this credential.
pub fn request(credential: Option<&HeaderValue>) -> Request<()> {
    let mut request = Request::new(());
    if let Some(credential) = credential {
        request.headers_mut().insert(AUTHORIZATION, credential.clone());
    }
    request
}

/// The code of the refusal that a response carries.
pub fn code<B>(response: &Response<B>) -> Option<&'static str> {
    response.extensions().get::<Refusal>().map(Refusal::code)
}

/// The status of a response, and why it is a refusal.
pub fn outcome<B>(response: &Response<B>) -> (u16, Option<&'static str>) {
    (response.status().as_u16(), code(response))
}

/// A header as text.
pub fn header<'r, B>(response: &'r Response<B>, name: &str) -> Option<&'r str> {
    response.headers().get(name).map(|value| value.to_str().unwrap())
}

/// Answers at once, with what the closure makes of the request, and counts.
#[derive(Clone)]
pub struct Inner<F> {
    pub calls: Arc<AtomicUsize>,
    answer: F,
}

pub fn inner<F>(answer: F) -> Inner<F>
where
    F: Fn(&Request<()>) -> Response<String> + Clone,
{
    Inner { calls: Arc::default(), answer }
}

/// Answers 200 and what is left of the token.
pub fn ok() -> Inner<impl Fn(&Request<()>) -> Response<String> + Clone + Send + 'static> {
    inner(|request| {
        let grant = request.extensions().get::<Grant>().expect("a gate admitted the request");
        Response::new(format!("{:?}", grant.remaining()))
    })
}

/// Answers this status.
pub fn status(status: u16) -> Inner<impl Fn(&Request<()>) -> Response<String> + Clone + Send + 'static> {
    inner(move |_| Response::builder().status(status).body(String::new()).unwrap())
}

impl<F> Inner<F> {
    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    pub fn behind(&self, gate: &Gate) -> L402<Self>
    where
        F: Clone,
    {
        L402Layer::new(gate.clone()).layer(self.clone())
    }
}

impl<F> Service<Request<()>> for Inner<F>
where
    F: Fn(&Request<()>) -> Response<String>,
{
    type Response = Response<String>;
    type Error = Infallible;
    type Future = Ready<Result<Response<String>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<()>) -> Self::Future {
        self.calls.fetch_add(1, Ordering::SeqCst);
        ready(Ok((self.answer)(&request)))
    }
}

/// Waits until the service is ready, and calls it.
pub async fn call<S>(service: &mut S, request: Request<()>) -> Result<S::Response, S::Error>
where
    S: Service<Request<()>>,
{
    std::future::poll_fn(|cx| service.poll_ready(cx)).await?;
    service.call(request).await
}

/// Whether the service is ready now.
pub fn is_ready<S: Service<Request<()>>>(service: &mut S) -> bool {
    service.poll_ready(&mut Context::from_waker(Waker::noop())).is_ready()
}

/// Polls a future once, for nobody.
pub fn poll_once<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// Lets every task that can go on go on.
pub async fn settle_tasks() {
    for _ in 0..64 {
        tokio::task::yield_now().await;
    }
}
