//! Speed bumps: what is moved or shared on every request stays small, and
//! what a server shares between threads can be shared.

#![allow(missing_docs)]

use std::convert::Infallible;
use std::marker::PhantomData;
use std::mem::size_of;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use http::{Request, Response};
use l402::macaroon::{Identifier, Macaroon};
use l402::service::Body;
use l402::{
    Admission, Caveat, CaveatRegistry, Challenge, ChargeOn, DevBackend, Error, FixedClock, Gate, GateBuilder,
    Grant, Issuer, IssuerBuilder, KeyRing, L402, L402Layer, MemoryLedger, Offer, Paid, PaymentHash, Preimage,
    Price, PriceError, Refusal, RootKey, Settle, SettleFuture, SettleLayer,
};
use tower_service::Service;

#[test]
fn what_is_moved_on_every_request_is_small() {
    for (name, size, most) in [
        ("Gate", size_of::<Gate>(), 8),
        ("Issuer", size_of::<Issuer>(), 8),
        ("L402Layer", size_of::<L402Layer>(), 16),
        ("Refusal", size_of::<Refusal>(), 24),
        ("Error", size_of::<Error>(), 48),
        ("PriceError", size_of::<PriceError>(), 24),
        ("Price", size_of::<Price>(), 16),
        ("Grant", size_of::<Grant>(), 280),
        ("Admission", size_of::<Admission>(), 480),
        ("Macaroon", size_of::<Macaroon<'_>>(), 192),
        ("Body<Vec<u8>>", size_of::<Body<Vec<u8>>>(), 40),
    ] {
        assert!(size <= most, "{name} has {size} bytes, over {most}");
    }
}

/// The type can be moved to other threads, shared by them, and kept.
fn shared<T: Send + Sync + 'static>() {}

#[test]
fn public_types_are_shared_between_threads() {
    shared::<Admission>();
    shared::<CaveatRegistry>();
    shared::<Caveat<'static>>();
    shared::<Challenge>();
    shared::<ChargeOn>();
    shared::<DevBackend>();
    shared::<Error>();
    shared::<FixedClock>();
    shared::<Gate>();
    shared::<GateBuilder>();
    shared::<Grant>();
    shared::<Identifier>();
    shared::<Issuer>();
    shared::<IssuerBuilder>();
    shared::<KeyRing>();
    shared::<L402Layer>();
    shared::<L402<()>>();
    shared::<Macaroon<'static>>();
    shared::<MemoryLedger>();
    shared::<Offer>();
    shared::<Paid>();
    shared::<PaymentHash>();
    shared::<Preimage>();
    shared::<PriceError>();
    shared::<Refusal>();
    shared::<RootKey>();
    shared::<Settle<()>>();
    shared::<SettleFuture<()>>();
    shared::<SettleLayer>();
    shared::<Body<Vec<u8>>>();
}

type Answer = Result<Response<String>, Infallible>;
type Sent = Pin<Box<dyn Future<Output = Answer> + Send>>;
type Local = Pin<Box<dyn Future<Output = Answer>>>;

/// An inner service with this future. Nobody calls it.
struct Inner<F>(PhantomData<F>);

impl<F> Clone for Inner<F> {
    fn clone(&self) -> Self {
        Self(PhantomData)
    }
}

impl<F: Future<Output = Answer>, B> Service<Request<B>> for Inner<F> {
    type Response = Response<String>;
    type Error = Infallible;
    type Future = F;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        unimplemented!("only its types are looked at")
    }

    fn call(&mut self, _: Request<B>) -> F {
        unimplemented!("only its types are looked at")
    }
}

fn is_service<S: Service<Request<B>>, B>() {}

fn has_send_future<S: Service<Request<B>>, B>()
where
    S::Future: Send,
{
}

#[test]
fn the_future_is_send_where_the_inner_one_is_and_else_need_not_be() {
    has_send_future::<L402<Inner<Sent>>, String>();
    has_send_future::<Settle<Inner<Sent>>, String>();
    is_service::<L402<Inner<Local>>, Rc<()>>();
    is_service::<Settle<Inner<Local>>, Rc<()>>();
}
