use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::response;
use http_body::{Frame, SizeHint};
use pin_project_lite::pin_project;

use crate::answer;
use crate::deadline::Deadline;
use crate::refusal::Refusal;

use super::cut::Cut;

pin_project! {
    /// The body of a response: the inner service's, untouched, or the gate's.
    #[derive(Debug)]
    pub struct Body<B> {
        #[pin]
        kind: Kind<B>,
    }
}

pin_project! {
    #[derive(Debug)]
    #[project = KindProj]
    enum Kind<B> {
        Inner { #[pin] body: B },
        Cut { #[pin] body: Pin<Box<Cut<B>>> },
        Gate { bytes: Bytes },
    }
}

impl<B> Body<B> {
    pub(super) fn inner(body: B) -> Self {
        Self { kind: Kind::Inner { body } }
    }

    /// The inner service's, cut at this moment. A gRPC response then ends with a
    /// status that says so.
    pub(super) fn cut(head: &response::Parts, body: B, deadline: Deadline) -> Self {
        let trailers = answer::is_grpc(&head.headers).then(|| answer::trailers(&Refusal::Expired));
        Self { kind: Kind::Cut { body: Box::pin(Cut::new(body, deadline, trailers)) } }
    }

    pub(super) fn gate(bytes: Bytes) -> Self {
        Self { kind: Kind::Gate { bytes } }
    }
}

impl<B: http_body::Body<Data = Bytes>> http_body::Body for Body<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        match self.project().kind.project() {
            KindProj::Inner { body } => body.poll_frame(cx),
            KindProj::Cut { body } => body.poll_frame(cx),
            KindProj::Gate { bytes } if bytes.is_empty() => Poll::Ready(None),
            KindProj::Gate { bytes } => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Inner { body } => body.is_end_stream(),
            Kind::Cut { body } => body.is_end_stream(),
            Kind::Gate { bytes } => bytes.is_empty(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Inner { body } => body.size_hint(),
            Kind::Cut { body } => body.size_hint(),
            Kind::Gate { bytes } => SizeHint::with_exact(bytes.len() as u64),
        }
    }
}

impl<B: Default> Default for Body<B> {
    fn default() -> Self {
        Self::inner(B::default())
    }
}
