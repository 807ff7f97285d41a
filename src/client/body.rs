//! The body of a request that can be sent a second time, once it is paid.

use std::any::Any;
use std::fmt;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};

use super::error::BoxError;
use super::replay::{self, Boxed, Part, Recording};

/// A request's body. What is whole in memory can be sent any number of times.
/// Any other ([`Body::new`]) is recorded while it is sent, up to a limit
/// ([`Payer::with_replay_limit`](super::Payer::with_replay_limit)): sent again,
/// what was recorded comes first, and then what the body still gives. So a
/// stream that waits for its first answer can be paid for.
pub struct Body(Kind);

enum Kind {
    Whole(Bytes),
    /// Locked, so that the body can be shared, as some clients ask.
    Stream(Mutex<Boxed>),
    Recorded(Part),
}

impl Body {
    /// A body that is read frame by frame.
    pub fn new<B>(body: B) -> Self
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        // No second box around one of ours.
        let mut body = Some(body);
        if let Some(ours) = (&mut body as &mut dyn Any).downcast_mut::<Option<Self>>() {
            return ours.take().expect("it was put there");
        }
        let body = body.expect("nobody took it");
        if body.is_end_stream() {
            return Self::default();
        }
        Self(Kind::Stream(Mutex::new(UnsyncBoxBody::new(body.map_err(Into::into)))))
    }

    /// The body, and what can give it again.
    pub(super) fn record(self, limit: usize) -> (Self, Replay) {
        let body = match self.0 {
            Kind::Whole(bytes) => return (bytes.clone().into(), Replay::Whole(bytes)),
            Kind::Stream(body) => body.into_inner().unwrap_or_else(PoisonError::into_inner),
            // Of a client above this one, which records it for itself.
            Kind::Recorded(part) => UnsyncBoxBody::new(part),
        };
        let (part, recording) = replay::record(body, limit);
        (Self(Kind::Recorded(part)), Replay::Recording(recording))
    }

    /// A second one of a body that is whole.
    pub(super) fn try_clone(&self) -> Option<Self> {
        match &self.0 {
            Kind::Whole(bytes) => Some(Self(Kind::Whole(bytes.clone()))),
            Kind::Stream(_) | Kind::Recorded(_) => None,
        }
    }
}

fn lock(body: &Mutex<Boxed>) -> MutexGuard<'_, Boxed> {
    body.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Gives a body again.
pub(super) enum Replay {
    Whole(Bytes),
    Recording(Recording),
}

impl Replay {
    /// Stops what was sent so far; `false` where the body cannot be sent again.
    pub(super) fn hold(&self) -> bool {
        match self {
            Self::Whole(_) => true,
            Self::Recording(recording) => recording.hold(),
        }
    }

    /// The body from its beginning, once it was held.
    pub(super) fn body(&self) -> Body {
        match self {
            Self::Whole(bytes) => bytes.clone().into(),
            Self::Recording(recording) => Body(Kind::Recorded(recording.part())),
        }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut self.0 {
            Kind::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Kind::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Kind::Stream(body) => {
                Pin::new(body.get_mut().unwrap_or_else(PoisonError::into_inner)).poll_frame(cx)
            }
            Kind::Recorded(part) => Pin::new(part).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Whole(bytes) => bytes.is_empty(),
            Kind::Stream(body) => lock(body).is_end_stream(),
            Kind::Recorded(part) => part.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Stream(body) => lock(body).size_hint(),
            Kind::Recorded(part) => part.size_hint(),
        }
    }
}

impl Default for Body {
    fn default() -> Self {
        Self(Kind::Whole(Bytes::new()))
    }
}

impl From<()> for Body {
    fn from((): ()) -> Self {
        Self::default()
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self(Kind::Whole(bytes))
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Bytes::from(bytes).into()
    }
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        Bytes::from(text).into()
    }
}

impl From<&'static str> for Body {
    fn from(text: &'static str) -> Self {
        Bytes::from_static(text.as_bytes()).into()
    }
}

impl From<Full<Bytes>> for Body {
    fn from(mut full: Full<Bytes>) -> Self {
        match Pin::new(&mut full).poll_frame(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Some(Ok(frame))) => frame.into_data().unwrap_or_default().into(),
            _ => Self::default(),
        }
    }
}

#[cfg(feature = "tonic")]
#[cfg_attr(docsrs, doc(cfg(feature = "tonic")))]
impl From<Body> for tonic::body::Body {
    fn from(body: Body) -> Self {
        Self::new(body)
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::StreamBody;

    use super::*;

    async fn read(body: Body) -> Bytes {
        body.collect().await.unwrap().to_bytes()
    }

    #[tokio::test]
    async fn what_is_whole_is_sent_any_number_of_times() {
        for (body, text) in [
            (Body::from(()), ""),
            ("text".into(), "text"),
            ("text".to_owned().into(), "text"),
            (b"text".to_vec().into(), "text"),
            (Bytes::from_static(b"text").into(), "text"),
            (Full::from("text").into(), "text"),
            (Full::default().into(), ""),
            (Body::new(Body::from("text")), "text"),
            (Body::new(http_body_util::Empty::new()), ""),
        ] {
            assert_eq!(
                (body.size_hint().exact(), body.is_end_stream()),
                (Some(text.len() as u64), text.is_empty())
            );
            assert_eq!(read(body.try_clone().unwrap()).await, text);
            let (body, replay) = body.record(0);
            assert_eq!(read(body).await, text);
            for _ in 0..2 {
                assert!(replay.hold());
                assert_eq!(read(replay.body()).await, text);
            }
        }
    }

    #[tokio::test]
    async fn a_stream_is_recorded_by_each_client_that_sends_it() {
        let frame = || tokio_stream::once(Ok::<_, BoxError>(Frame::data(Bytes::from_static(b"text"))));
        assert!(Body::new(StreamBody::new(frame())).try_clone().is_none());
        let (outer, outer_replay) = Body::new(StreamBody::new(frame())).record(100);
        let (inner, inner_replay) = Body::new(outer).record(100);
        assert_eq!(read(inner).await, "text");
        assert!(inner_replay.hold());
        assert_eq!(read(inner_replay.body()).await, "text");
        assert!(outer_replay.hold());
        assert_eq!(read(outer_replay.body()).await, "text");
    }
}
