use std::mem;
use std::sync::Arc;
use std::task::{Context, Poll};

use arc_swap::ArcSwap;
use http::{Request, Response};
use tower_service::Service;

use crate::answer;
use crate::credential;
use crate::decision::{Decided, Judged};
use crate::gate::Gate;

use super::{Body, ResponseFuture};

/// A service behind a [`Gate`]: what [`L402Layer`](super::L402Layer) makes.
#[derive(Clone, Debug)]
pub struct L402<S> {
    inner: S,
    gate: Arc<ArcSwap<Gate>>,
    forward_preflight: bool,
    cut_at_expiry: bool,
}

impl<S> L402<S> {
    pub(super) fn new(
        inner: S,
        gate: Arc<ArcSwap<Gate>>,
        forward_preflight: bool,
        cut_at_expiry: bool,
    ) -> Self {
        Self { inner, gate, forward_preflight, cut_at_expiry }
    }
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for L402<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>> + Clone,
{
    type Response = Response<Body<ResBody>>;
    type Error = S::Error;
    type Future = ResponseFuture<S, S::Future, ReqBody>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        let (mut head, body) = request.into_parts();
        if answer::is_preflight(&head) {
            if self.forward_preflight {
                // What is wrong with a credential is nobody's concern here.
                let bearers = self.gate.load().0.issuer.takes_bearers();
                credential::discard(&mut head.headers, bearers);
                return ResponseFuture::forwarded(self.inner.call(Request::from_parts(head, body)));
            }
            self.give_back_readiness();
            return ResponseFuture::answered(answer::preflight());
        }
        // The gate of this request to its end, whatever is set meanwhile.
        let gate = self.gate.load();
        match gate.judge(&mut head) {
            Judged::Decided(Decided::Admitted(admission)) => {
                ResponseFuture::admitted(admission, self.cut_at_expiry, &mut self.inner, head, body)
            }
            Judged::Decided(Decided::Refused(response)) => {
                self.give_back_readiness();
                ResponseFuture::answered(response)
            }
            Judged::Decided(Decided::Payable(payable)) => {
                self.give_back_readiness();
                ResponseFuture::payable(Gate::clone(&gate), head, payable)
            }
            Judged::Undecided(pending) => {
                // The service that was polled ready goes with the request.
                let fresh = self.inner.clone();
                let ready = mem::replace(&mut self.inner, fresh);
                ResponseFuture::undecided(Gate::clone(&gate), self.cut_at_expiry, head, pending, ready, body)
            }
        }
    }
}

impl<S: Clone> L402<S> {
    /// Drops what `poll_ready` reserved in the inner service, a place under a
    /// concurrency limit for one, which this request will not use.
    fn give_back_readiness(&mut self) {
        self.inner = self.inner.clone();
    }
}
