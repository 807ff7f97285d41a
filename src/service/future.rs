use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::request::Parts;
use http::{Request, Response};
use pin_project_lite::pin_project;
use tower_service::Service;

use crate::admission::{Admission, Settlement};
use crate::deadline::Deadline;
use crate::decision::{Decided, Payable, Pending};
use crate::gate::Gate;

use super::Body;

/// The ledger's part of a decision. It owns the head and gives it back, so
/// that body and ready service can stay outside the box.
type Decision = Pin<Box<dyn Future<Output = (Gate, Parts, Decided)> + Send>>;
/// The backend's part. Body and ready service are gone when it begins.
type Sale = Pin<Box<dyn Future<Output = Response<Bytes>> + Send>>;

pin_project! {
    /// The response of a service behind a gate.
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<S, F, B> {
        #[pin]
        state: State<S, F, B>,
    }
}

pin_project! {
    #[project = StateProj]
    #[project_replace = StateOwned]
    enum State<S, F, B> {
        Undecided { decision: Decision, cut: bool, ready: S, body: B },
        Admitted { #[pin] response: F, settlement: Option<Settlement>, deadline: Option<Deadline> },
        Payable { sale: Sale },
        Answered { response: Response<Bytes> },
        Done,
    }
}

impl<S, F, B> ResponseFuture<S, F, B> {
    pub(super) fn undecided(gate: Gate, cut: bool, head: Parts, pending: Pending, ready: S, body: B) -> Self {
        let decision = Box::pin(async move {
            let decided = gate.decide(&head, pending).await;
            (gate, head, decided)
        });
        Self { state: State::Undecided { decision, cut, ready, body } }
    }

    pub(super) fn payable(gate: Gate, head: Parts, payable: Payable) -> Self {
        Self { state: State::payable(gate, head, payable) }
    }

    pub(super) fn answered(response: Response<Bytes>) -> Self {
        Self { state: State::Answered { response } }
    }

    /// A request that the gate let pass without a grant.
    pub(super) fn forwarded(response: F) -> Self {
        Self { state: State::Admitted { response, settlement: None, deadline: None } }
    }

    pub(super) fn admitted(admission: Admission, cut: bool, inner: &mut S, head: Parts, body: B) -> Self
    where
        S: Service<Request<B>, Future = F>,
    {
        Self { state: State::admitted(admission, cut, inner, head, body) }
    }
}

impl<S, F, B> State<S, F, B> {
    fn payable(gate: Gate, head: Parts, payable: Payable) -> Self {
        Self::Payable { sale: Box::pin(async move { gate.sell(&head, payable).await }) }
    }

    fn admitted(admission: Admission, cut: bool, inner: &mut S, mut head: Parts, body: B) -> Self
    where
        S: Service<Request<B>, Future = F>,
    {
        admission.forward_credential(&mut head);
        let (grant, mut settlement) = admission.into_parts();
        let deadline = if cut { grant.deadline() } else { None };
        head.extensions.insert(grant);
        settlement.until_inner_returns();
        let response = inner.call(Request::from_parts(head, body));
        settlement.until_response();
        Self::Admitted { response, settlement: Some(settlement), deadline }
    }
}

impl<S, F, B, ResBody, E> Future for ResponseFuture<S, F, B>
where
    S: Service<Request<B>, Response = Response<ResBody>, Error = E, Future = F>,
    F: Future<Output = Result<Response<ResBody>, E>>,
{
    type Output = Result<Response<Body<ResBody>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            match state.as_mut().project() {
                StateProj::Undecided { decision, .. } => {
                    let (gate, head, decided) = ready!(decision.as_mut().poll(cx));
                    let StateOwned::Undecided { cut, mut ready, body, .. } =
                        state.as_mut().project_replace(State::Done)
                    else {
                        unreachable!("the state was matched above")
                    };
                    state.set(match decided {
                        Decided::Admitted(admission) => {
                            State::admitted(admission, cut, &mut ready, head, body)
                        }
                        Decided::Refused(response) => State::Answered { response },
                        Decided::Payable(payable) => State::payable(gate, head, payable),
                    });
                }
                StateProj::Payable { sale } => {
                    let response = ready!(sale.as_mut().poll(cx));
                    state.set(State::Done);
                    return Poll::Ready(Ok(response.map(Body::gate)));
                }
                StateProj::Admitted { response, settlement, deadline } => {
                    if let Some(settlement) = settlement {
                        settlement.until_inner_returns();
                    }
                    let result = match response.poll(cx) {
                        Poll::Ready(result) => result,
                        Poll::Pending => {
                            if let Some(settlement) = settlement {
                                settlement.until_response();
                            }
                            return Poll::Pending;
                        }
                    };
                    let (settlement, deadline) = (settlement.take(), deadline.take());
                    state.set(State::Done);
                    return Poll::Ready(match (result, settlement) {
                        (Ok(response), Some(settlement)) => {
                            Ok(with_body(settlement.settle(response), deadline))
                        }
                        (Ok(response), None) => Ok(with_body(response, deadline)),
                        (Err(error), settlement) => {
                            if let Some(settlement) = settlement {
                                settlement.fail();
                            }
                            Err(error)
                        }
                    });
                }
                StateProj::Answered { .. } => {
                    let StateOwned::Answered { response } = state.project_replace(State::Done) else {
                        unreachable!("the state was matched above")
                    };
                    return Poll::Ready(Ok(response.map(Body::gate)));
                }
                StateProj::Done => panic!("`ResponseFuture` polled after completion"),
            }
        }
    }
}

fn with_body<B>(response: Response<B>, deadline: Option<Deadline>) -> Response<Body<B>> {
    let (head, body) = response.into_parts();
    let body = match deadline {
        // A length that was promised is kept.
        Some(deadline) if !head.headers.contains_key(CONTENT_LENGTH) => Body::cut(&head, body, deadline),
        _ => Body::inner(body),
    };
    Response::from_parts(head, body)
}

impl<S, F, B> fmt::Debug for ResponseFuture<S, F, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
