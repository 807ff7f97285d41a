//! The body of a request that can be sent a second time, once it is paid.

use std::any::Any;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};

use super::error::BoxError;

/// Most frames that are recorded of one body: empty ones take room too.
const MAX_FRAMES: usize = 1024;

/// A request's body. What is whole in memory can be sent any number of times.
/// Any other ([`Body::new`]) is recorded while it is sent, up to a limit
/// ([`Payer::with_replay_limit`](super::Payer::with_replay_limit)): sent again,
/// what was recorded comes first, and then what the body still gives. So a
/// stream that waits for its first answer can be paid for.
pub struct Body(Kind);

type Boxed = UnsyncBoxBody<Bytes, BoxError>;

enum Kind {
    Whole(Bytes),
    Stream(Boxed),
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
        Self(Kind::Stream(UnsyncBoxBody::new(body.map_err(Into::into))))
    }

    /// The body, and what can give it again.
    pub(super) fn record(self, limit: usize) -> (Self, Replay) {
        let body = match self.0 {
            Kind::Whole(bytes) => return (Self(Kind::Whole(bytes.clone())), Replay(Source::Whole(bytes))),
            Kind::Stream(body) => body,
            // Of a client above this one, which records it for itself.
            Kind::Recorded(part) => UnsyncBoxBody::new(Self(Kind::Recorded(part))),
        };
        let recording = Recording {
            rest: body,
            frames: Vec::new(),
            room: limit,
            records: true,
            is_lost: false,
            has_ended: false,
            turn: 0,
            waiting: None,
        };
        let recording = Arc::new(Mutex::new(recording));
        let part = Part { recording: recording.clone(), next: 0, turn: 0 };
        (Self(Kind::Recorded(part)), Replay(Source::Recording(recording)))
    }

    /// A second one of a body that is whole.
    pub(super) fn try_clone(&self) -> Option<Self> {
        match &self.0 {
            Kind::Whole(bytes) => Some(Self(Kind::Whole(bytes.clone()))),
            Kind::Stream(_) | Kind::Recorded(_) => None,
        }
    }
}

/// Gives a body again. Dropped, nothing more is recorded.
pub(super) struct Replay(Source);

enum Source {
    Whole(Bytes),
    Recording(Arc<Mutex<Recording>>),
}

impl Replay {
    /// Stops what was sent so far; `false` where the body cannot be sent again.
    pub(super) fn hold(&self) -> bool {
        let Source::Recording(recording) = &self.0 else { return true };
        let mut recording = lock(recording);
        recording.turn += 1;
        // Whoever waits for a frame learns that there is none for it any more.
        if let Some(waiting) = recording.waiting.take() {
            waiting.wake();
        }
        !recording.is_lost
    }

    /// The body from its beginning, once it was held.
    pub(super) fn body(&self) -> Body {
        Body(match &self.0 {
            Source::Whole(bytes) => Kind::Whole(bytes.clone()),
            Source::Recording(recording) => {
                let turn = lock(recording).turn;
                Kind::Recorded(Part { recording: recording.clone(), next: 0, turn })
            }
        })
    }
}

impl Drop for Replay {
    fn drop(&mut self) {
        if let Source::Recording(recording) = &self.0 {
            lock(recording).records = false;
        }
    }
}

/// What was sent, and what is still to come.
struct Recording {
    rest: Boxed,
    frames: Vec<Recorded>,
    /// How many bytes may still be recorded.
    room: usize,
    records: bool,
    is_lost: bool,
    has_ended: bool,
    /// Which of the bodies made of it may go on; the ones before it are cut off.
    turn: u64,
    waiting: Option<Waker>,
}

#[derive(Clone)]
enum Recorded {
    Data(Bytes),
    Trailers(HeaderMap),
}

impl Recording {
    fn poll(
        &mut self,
        next: &mut usize,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Some(recorded) = self.frames.get(*next) {
            *next += 1;
            return Poll::Ready(Some(Ok(match recorded.clone() {
                Recorded::Data(bytes) => Frame::data(bytes),
                Recorded::Trailers(trailers) => Frame::trailers(trailers),
            })));
        }
        if !self.records {
            self.frames.clear();
        }
        if self.has_ended {
            return Poll::Ready(None);
        }
        match Pin::new(&mut self.rest).poll_frame(cx) {
            Poll::Pending => {
                self.waiting = Some(cx.waker().clone());
                Poll::Pending
            }
            Poll::Ready(None) => {
                self.has_ended = true;
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(error))) => {
                (self.has_ended, self.is_lost) = (true, true);
                Poll::Ready(Some(Err(error)))
            }
            Poll::Ready(Some(Ok(frame))) => {
                if self.records {
                    self.record(&frame);
                    *next = self.frames.len();
                }
                Poll::Ready(Some(Ok(frame)))
            }
        }
    }

    fn record(&mut self, frame: &Frame<Bytes>) {
        let len = match (frame.data_ref(), frame.trailers_ref()) {
            (Some(data), _) => data.len(),
            (None, trailers) => trailers
                .map_or(0, |all| all.iter().map(|(name, value)| name.as_str().len() + value.len()).sum()),
        };
        if len > self.room || self.frames.len() >= MAX_FRAMES {
            (self.records, self.is_lost, self.frames) = (false, true, Vec::new());
            return;
        }
        self.room -= len;
        let recorded = match (frame.data_ref(), frame.trailers_ref()) {
            (Some(data), _) => Recorded::Data(data.clone()),
            (None, Some(trailers)) => Recorded::Trailers(trailers.clone()),
            (None, None) => return,
        };
        self.frames.push(recorded);
    }
}

struct Part {
    recording: Arc<Mutex<Recording>>,
    next: usize,
    turn: u64,
}

fn lock(recording: &Mutex<Recording>) -> MutexGuard<'_, Recording> {
    recording.lock().unwrap_or_else(PoisonError::into_inner)
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
            Kind::Stream(body) => Pin::new(body).poll_frame(cx),
            Kind::Recorded(Part { recording, next, turn }) => {
                let mut recording = lock(recording);
                if recording.turn != *turn {
                    return Poll::Ready(Some(Err("the request is sent again".into())));
                }
                recording.poll(next, cx)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Whole(bytes) => bytes.is_empty(),
            Kind::Stream(body) => body.is_end_stream(),
            Kind::Recorded(Part { recording, next, turn }) => {
                let recording = lock(recording);
                recording.turn == *turn
                    && *next >= recording.frames.len()
                    && (recording.has_ended || recording.rest.is_end_stream())
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Stream(body) => body.size_hint(),
            Kind::Recorded(Part { recording, next, .. }) => {
                let recording = lock(recording);
                let recorded = recording.frames.iter().skip(*next).map(|frame| match frame {
                    Recorded::Data(bytes) => bytes.len() as u64,
                    Recorded::Trailers(_) => 0,
                });
                let recorded: u64 = recorded.sum();
                let rest = recording.rest.size_hint();
                let mut hint = SizeHint::new();
                hint.set_lower(recorded.saturating_add(rest.lower()));
                if let Some(upper) = rest.upper().and_then(|upper| upper.checked_add(recorded)) {
                    hint.set_upper(upper);
                }
                hint
            }
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

impl fmt::Debug for Replay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replay").finish_non_exhaustive()
    }
}
