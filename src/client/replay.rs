//! A body that is recorded while it is sent, and sent again.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;

use super::error::BoxError;

/// Most frames that are recorded of one body: empty ones take room too.
const MAX_FRAMES: usize = 1024;

/// Any body.
pub(super) type Boxed = UnsyncBoxBody<Bytes, BoxError>;

/// The body, and what can give it again up to a limit in bytes.
pub(super) fn record(body: Boxed, limit: usize) -> (Part, Recording) {
    let shared = Shared {
        rest: body,
        frames: Vec::new(),
        room: limit,
        records: true,
        is_lost: false,
        has_ended: false,
        turn: 0,
        waiting: None,
    };
    let recording = Recording(Arc::new(Mutex::new(shared)));
    (recording.part(), recording)
}

/// Gives a body again. Dropped, nothing more is recorded.
pub(super) struct Recording(Arc<Mutex<Shared>>);

impl Recording {
    /// Stops what was sent so far; `false` where the body cannot be sent again.
    pub(super) fn hold(&self) -> bool {
        let (waiting, is_lost) = {
            let mut shared = lock(&self.0);
            shared.turn += 1;
            (shared.waiting.take(), shared.is_lost)
        };
        // Whoever waits for a frame learns that there is none for it any more.
        if let Some(waiting) = waiting {
            waiting.wake();
        }
        !is_lost
    }

    /// The body from its beginning. One at a time: hold the one before.
    pub(super) fn part(&self) -> Part {
        Part { turn: lock(&self.0).turn, shared: self.0.clone(), next: 0 }
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        lock(&self.0).records = false;
    }
}

/// What was recorded, and then what the body still gives.
pub(super) struct Part {
    shared: Arc<Mutex<Shared>>,
    next: usize,
    turn: u64,
}

/// What was sent, and what is still to come.
struct Shared {
    rest: Boxed,
    frames: Vec<Recorded>,
    /// How many bytes may still be recorded.
    room: usize,
    records: bool,
    is_lost: bool,
    has_ended: bool,
    /// Which of the bodies made of it may go on; those before it are cut off.
    turn: u64,
    waiting: Option<Waker>,
}

#[derive(Clone)]
enum Recorded {
    Data(Bytes),
    Trailers(HeaderMap),
}

impl Shared {
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
            self.frames = Vec::new();
        }
        if self.has_ended {
            return Poll::Ready(None);
        }
        let polled = Pin::new(&mut self.rest).poll_frame(cx);
        match &polled {
            Poll::Pending => self.waiting = Some(cx.waker().clone()),
            Poll::Ready(None) => self.has_ended = true,
            Poll::Ready(Some(Err(_))) => (self.has_ended, self.is_lost) = (true, true),
            Poll::Ready(Some(Ok(frame))) if self.records => {
                self.record(frame);
                *next = self.frames.len();
            }
            Poll::Ready(Some(Ok(_))) => {}
        }
        polled
    }

    fn record(&mut self, frame: &Frame<Bytes>) {
        let (recorded, len) = if let Some(data) = frame.data_ref() {
            (Recorded::Data(data.clone()), data.len())
        } else if let Some(trailers) = frame.trailers_ref() {
            let len = trailers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
            (Recorded::Trailers(trailers.clone()), len)
        } else {
            return;
        };
        if len > self.room || self.frames.len() >= MAX_FRAMES {
            (self.records, self.is_lost, self.frames) = (false, true, Vec::new());
            return;
        }
        self.room -= len;
        self.frames.push(recorded);
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl http_body::Body for Part {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Self { shared, next, turn } = self.get_mut();
        let mut shared = lock(shared);
        if shared.turn != *turn {
            return Poll::Ready(Some(Err("the request is sent again".into())));
        }
        shared.poll(next, cx)
    }

    fn is_end_stream(&self) -> bool {
        let shared = lock(&self.shared);
        shared.turn == self.turn
            && self.next >= shared.frames.len()
            && (shared.has_ended || shared.rest.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let shared = lock(&self.shared);
        let recorded = shared.frames.iter().skip(self.next).map(|frame| match frame {
            Recorded::Data(bytes) => bytes.len() as u64,
            Recorded::Trailers(_) => 0,
        });
        let recorded: u64 = recorded.sum();
        let rest = shared.rest.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(recorded.saturating_add(rest.lower()));
        if let Some(upper) = rest.upper().and_then(|upper| upper.checked_add(recorded)) {
            hint.set_upper(upper);
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use http_body_util::BodyExt as _;

    use super::*;

    /// Gives these frames, and then nothing more comes until it is dropped.
    struct Script(VecDeque<Result<Frame<Bytes>, BoxError>>, bool);

    impl http_body::Body for Script {
        type Data = Bytes;
        type Error = BoxError;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
            match self.0.pop_front() {
                None if !self.1 => Poll::Pending,
                frame => Poll::Ready(frame),
            }
        }
    }

    fn script(frames: impl IntoIterator<Item = Result<Frame<Bytes>, BoxError>>, ends: bool) -> Boxed {
        UnsyncBoxBody::new(Script(frames.into_iter().collect(), ends))
    }

    fn data(text: &'static str) -> Frame<Bytes> {
        Frame::data(Bytes::from_static(text.as_bytes()))
    }

    async fn next(part: &mut Part) -> Option<String> {
        let frame = part.frame().await?.unwrap();
        Some(match frame.into_data() {
            Ok(data) => String::from_utf8(data.to_vec()).unwrap(),
            Err(frame) => format!("{:?}", frame.into_trailers().unwrap()),
        })
    }

    async fn all(mut part: Part) -> Vec<String> {
        let mut frames = Vec::new();
        while let Some(frame) = next(&mut part).await {
            frames.push(frame);
        }
        frames
    }

    #[tokio::test]
    async fn what_was_sent_comes_again_and_then_the_rest() {
        let trailers = HeaderMap::from_iter([("a".parse().unwrap(), "b".parse().unwrap())]);
        let frames = [data("one"), data("two"), data("three"), Frame::trailers(trailers)];
        let (mut first, recording) = record(script(frames.map(Ok), true), 100);
        for sent in 0..4 {
            let again = if sent == 0 { &mut first } else { &mut recording.part() };
            for _ in 0..sent {
                assert!(next(again).await.is_some());
            }
            assert!(recording.hold());
            assert!(again.frame().await.unwrap().is_err(), "the one before is cut off");
        }
        let whole = ["one", "two", "three", r#"{"a": "b"}"#];
        assert_eq!(all(recording.part()).await, whole);
        assert!(recording.hold());
        let last = recording.part();
        drop(recording);
        assert_eq!(all(last).await, whole, "what is recorded stays until it was sent");
    }

    #[tokio::test]
    async fn beyond_the_limit_nothing_can_be_sent_again() {
        for (limit, again) in [(6, true), (5, false), (0, false)] {
            let (part, recording) = record(script([data("one"), data("two")].map(Ok), true), limit);
            assert_eq!(all(part).await, ["one", "two"], "it is sent all the same");
            assert_eq!(recording.hold(), again, "{limit}");
        }
        let empty = (0..=MAX_FRAMES).map(|_| Ok(data("")));
        let (part, recording) = record(script(empty, true), 100);
        assert_eq!(all(part).await.len(), MAX_FRAMES + 1);
        assert!(!recording.hold(), "empty frames take room too");
    }

    #[tokio::test]
    async fn a_body_that_failed_is_not_sent_again() {
        let (mut part, recording) = record(script([Ok(data("one")), Err("gone".into())], true), 100);
        assert_eq!(next(&mut part).await.unwrap(), "one");
        assert!(part.frame().await.unwrap().is_err());
        assert!(part.frame().await.is_none());
        assert!(!recording.hold());
    }

    #[tokio::test]
    async fn who_waits_for_a_frame_is_woken_when_the_body_is_held() {
        let (mut part, recording) = record(script([], false), 100);
        let waiting = tokio::spawn(async move { part.frame().await.unwrap().is_err() });
        tokio::task::yield_now().await;
        assert!(recording.hold());
        assert!(waiting.await.unwrap());
    }

    #[tokio::test]
    async fn hints_are_those_of_the_whole() {
        let body = UnsyncBoxBody::new(http_body_util::Full::from("sixteen bytes...").map_err(Into::into));
        let (mut part, recording) = record(body, 100);
        assert_eq!((part.size_hint().exact(), part.is_end_stream()), (Some(16), false));
        assert_eq!(next(&mut part).await.unwrap(), "sixteen bytes...");
        assert!(part.is_end_stream());
        assert!(recording.hold());
        let again = recording.part();
        assert_eq!((again.size_hint().exact(), again.is_end_stream()), (Some(16), false));
    }

    #[tokio::test]
    async fn nothing_is_recorded_once_it_is_answered() {
        let (mut part, recording) = record(script([data("one"), data("two")].map(Ok), true), 100);
        assert_eq!(next(&mut part).await.unwrap(), "one");
        drop(recording);
        assert_eq!(next(&mut part).await.unwrap(), "two");
        assert!(lock(&part.shared).frames.is_empty());
        assert!(next(&mut part).await.is_none());
    }
}
