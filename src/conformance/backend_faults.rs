//! What a backend makes of a server that fails.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::net::TcpSocket;

use super::backend::{in_time, is_of_the_answer};
use super::fault_server::{FAULTS, Fault, FaultServer, MOST_READ, RETRY_AFTER, SILENCES, said};
use crate::backend::{
    BackendError, BackendErrorKind, InvoiceRequest, InvoiceState, LookUpBy, PaymentBackend,
};
use crate::preimage::PaymentHash;

/// Most requests that one call makes: a step or two, and once again.
const MOST_REQUESTS: usize = 4;

/// Checks a backend that speaks HTTP against a server on loopback that fails in
/// every way: it refuses, closes, hangs, answers errors, redirects, garbage,
/// and answers without end. Each call gives an error of the kind that fits, and
/// no error and no `Debug` holds one of `secrets`.
///
/// `build` makes the backend of this base URL, `http://127.0.0.1:PORT`. Where
/// look-up is by handle, it is asked for the handle `http://127.0.0.1:PORT/handle`.
/// `secrets` are the backend's credentials as they stand in its requests, in
/// hex or base64 if they do there, and any other form that must not be shown;
/// where there are some, at least one has to be in the requests. Time is not
/// paused, and nothing waits for a time limit.
///
/// # Panics
/// A rule is broken.
pub async fn check_faults(build: impl Fn(&str) -> Arc<dyn PaymentBackend>, secrets: &[&str]) {
    refused(&build, secrets).await;
    for fault in FAULTS {
        let server = FaultServer::start(fault).await;
        let name = format!("{fault:?}");
        let subject = Subject::new(&build, server.base_url(), secrets, &name);
        for call in [Call::Create, Call::LookUp, Call::Health] {
            let (before, sent) = (server.requests(), server.sent());
            let Some(answer) = subject.call(call).await else { continue };
            subject.check(call, answer, &|kind| fits(fault, kind), fault == Fault::Status(404));
            let requests = server.requests() - before;
            let most = if fault == Fault::Status(429) { 1 } else { MOST_REQUESTS };
            assert!(requests <= most, "{name}: {call:?} asks {most} times at most, not {requests} times");
            let sent = server.sent() - sent;
            assert!(
                sent <= MOST_READ,
                "{name}: {call:?} stops reading an answer without end, not after {sent} bytes"
            );
            assert!(!server.was_followed(), "{name}: {call:?} follows no redirect");
        }
        if matches!(fault, Fault::Echo(_)) && !secrets.is_empty() {
            let request = server.last_request();
            assert!(
                secrets.iter().any(|secret| request.contains(secret)),
                "one of `secrets` is in the requests: name the credential as it stands there"
            );
        }
    }
    for silence in SILENCES {
        hangs(&build, silence, secrets).await;
    }
}

/// Nothing listens at the address.
async fn refused(build: &impl Fn(&str) -> Arc<dyn PaymentBackend>, secrets: &[&str]) {
    // Bound, so that nobody else gets the port.
    let socket = TcpSocket::new_v4().expect("the system has sockets");
    socket.bind(([127, 0, 0, 1], 0).into()).expect("loopback has a free port");
    let address = socket.local_addr().expect("a bound socket has an address");
    let subject = Subject::new(build, format!("http://{address}"), secrets, "connection refused");
    for call in [Call::Create, Call::LookUp, Call::Health] {
        let Some(answer) = subject.call(call).await else { continue };
        subject.check(call, answer, &|kind| kind == BackendErrorKind::Connect, false);
    }
}

/// The server falls silent, and the call is dropped, as the crate does at its
/// time limit. The next one reaches the server.
async fn hangs(build: &impl Fn(&str) -> Arc<dyn PaymentBackend>, silence: Fault, secrets: &[&str]) {
    let server = FaultServer::start(silence).await;
    let name = format!("a call after one that was dropped on {silence:?}");
    let subject = Subject::new(build, server.base_url(), secrets, &name);
    for call in [Call::Create, Call::LookUp, Call::Health] {
        server.set(silence);
        let asked = server.requests() + 1;
        if subject.call_until(call, server.has_requests(asked)).await {
            server.set(Fault::Status(401));
            let Some(answer) = subject.call(call).await else { continue };
            subject.check(call, answer, &|kind| kind == BackendErrorKind::Auth, false);
        }
    }
}

/// What of an error's kind fits a fault: `Connect` where nothing was sent,
/// `Timeout` where it may have been, and else what the answer was.
fn fits(fault: Fault, kind: BackendErrorKind) -> bool {
    use BackendErrorKind::{Auth, Backend, Connect, InvalidResponse, RateLimited, Rejected, Timeout};
    match fault {
        Fault::ClosedAtOnce => matches!(kind, Connect | Timeout | InvalidResponse),
        Fault::ClosedUnanswered | Fault::Truncated => matches!(kind, Timeout | InvalidResponse),
        Fault::Silent(_) => kind == Timeout,
        Fault::Status(401 | 403) | Fault::SlowBytes => kind == Auth,
        Fault::Status(429) => kind == RateLimited { retry_after: Some(Duration::from_secs(RETRY_AFTER)) },
        Fault::Status(500..) => kind == Backend,
        Fault::Status(_) | Fault::Echo(_) => is_of_the_answer(kind),
        Fault::Endless(500..) => matches!(kind, Backend | InvalidResponse),
        Fault::Redirect(_) | Fault::RedirectWithin(_) => matches!(kind, Backend | InvalidResponse | Rejected),
        Fault::Garbage | Fault::Body(_) | Fault::Endless(_) | Fault::Huge | Fault::EndlessHead => {
            kind == InvalidResponse
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Call {
    Create,
    LookUp,
    Health,
}

/// A good one tells the state where that was asked.
type Answer = Result<Option<InvoiceState>, BackendError>;

struct Subject<'a> {
    backend: Arc<dyn PaymentBackend>,
    look_up: Option<LookUpBy>,
    handle: String,
    secrets: &'a [&'a str],
    name: &'a str,
}

impl<'a> Subject<'a> {
    fn new(
        build: &impl Fn(&str) -> Arc<dyn PaymentBackend>,
        base_url: String,
        secrets: &'a [&'a str],
        name: &'a str,
    ) -> Self {
        let backend = build(&base_url);
        let look_up = backend.capabilities().look_up();
        Self { backend, look_up, handle: base_url + "/handle", secrets, name }
    }

    /// `None` where the backend cannot be asked this.
    async fn call(&self, call: Call) -> Option<Answer> {
        let backend = &self.backend;
        let answer = match call {
            Call::Create => {
                let ask =
                    InvoiceRequest::test(21_000_u64.next_multiple_of(backend.capabilities().step_msat()));
                in_time(backend.create_invoice(&ask), "create_invoice").await.map(|_| None)
            }
            Call::LookUp => {
                let handle = match self.look_up? {
                    LookUpBy::Handle => Some(&*self.handle),
                    LookUpBy::PaymentHash => None,
                };
                let hash = PaymentHash::from_bytes([0xab; 32]);
                in_time(backend.look_up(hash, handle), "look_up").await.map(Some)
            }
            Call::Health => in_time(backend.check_health(), "check_health").await.map(|()| None),
        };
        let is_unsupported = matches!(&answer, Err(error) if error.kind() == BackendErrorKind::Unsupported);
        (!matches!(call, Call::Health) || !is_unsupported).then_some(answer)
    }

    /// Calls, and drops the call at this event; `false` where the backend
    /// cannot be asked this.
    async fn call_until(&self, call: Call, event: impl Future<Output = ()>) -> bool {
        let (mut calling, mut event) = (pin!(self.call(call)), pin!(event));
        poll_fn(|cx| match calling.as_mut().poll(cx) {
            Poll::Ready(None) => Poll::Ready(false),
            Poll::Ready(Some(answer)) => panic!("{call:?} asks the server before it answers: {answer:?}"),
            Poll::Pending => event.as_mut().poll(cx).map(|()| true),
        })
        .await
    }

    fn check(&self, call: Call, answer: Answer, fits: &dyn Fn(BackendErrorKind) -> bool, unknown_fits: bool) {
        let name = self.name;
        self.holds_no_secret(&format!("{:?} {:#?}", self.backend, self.backend), "Debug of the backend");
        let error = match answer {
            Ok(Some(InvoiceState::Unknown)) if unknown_fits => return,
            Ok(state) => {
                let answer = state.map_or("success".to_owned(), |state| format!("{state:?}"));
                panic!("{name}: {call:?} gives an error, not {answer}")
            }
            Err(error) => error,
        };
        self.holds_no_secret(&said(&error), "an error");
        let kind = error.kind();
        assert!(fits(kind), "{name}: {call:?} gives an error of a kind that fits, not {kind:?}");
    }

    fn holds_no_secret(&self, text: &str, place: &str) {
        for secret in self.secrets {
            assert!(!text.contains(secret), "{}: {place} holds no secret", self.name);
        }
    }
}
