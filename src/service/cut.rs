use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use pin_project_lite::pin_project;

use crate::deadline::Deadline;

pin_project! {
    /// A body that ends when the token expires, unless its length is known: such
    /// a one was promised whole.
    #[derive(Debug)]
    pub(super) struct Cut<B> {
        // `None` once it was cut, so that whoever feeds it learns it.
        #[pin]
        body: Option<B>,
        deadline: Deadline,
        trailers: Option<HeaderMap>,
    }
}

impl<B> Cut<B> {
    /// Where it is cut, the trailers take the place of the body's own.
    pub(super) fn new(body: B, deadline: Deadline, trailers: Option<HeaderMap>) -> Self {
        Self { body: Some(body), deadline, trailers }
    }
}

impl<B: http_body::Body<Data = Bytes>> http_body::Body for Cut<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let mut this = self.project();
        let Some(body) = this.body.as_mut().as_pin_mut() else { return Poll::Ready(None) };
        let is_whole = body.size_hint().exact().is_some();
        if is_whole || !this.deadline.is_past() {
            match body.poll_frame(cx) {
                Poll::Pending if !is_whole => ready!(this.deadline.poll(cx)),
                polled => return polled,
            }
        }
        this.body.set(None);
        Poll::Ready(this.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(B::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or(SizeHint::with_exact(0), B::size_hint)
    }
}
