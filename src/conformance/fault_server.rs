//! A server on loopback that fails, in one way after another.

use std::error::Error as StdError;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// Longest request that is read, in bytes.
const MAX_REQUEST: usize = 64 * 1024;
/// Where an answer without an end ends all the same, in bytes.
pub(crate) const ENDLESS: u64 = 64 * 1024 * 1024;
/// Most that a server can send of an answer without end: what a client reads,
/// and what the system holds of a connection, in bytes.
pub(crate) const MOST_READ: u64 = 24 * 1024 * 1024;
/// What a server that limits the rate asks for, in seconds.
pub(crate) const RETRY_AFTER: u64 = 7;

/// How every request is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The connection is closed before a byte is read.
    ClosedAtOnce,
    /// The connection is closed once the request was read.
    ClosedUnanswered,
    /// Nothing comes after these bytes, and the connection stays open.
    Silent(&'static str),
    /// This status, with a line of text. 429 has a Retry-After.
    Status(u16),
    /// 401, a byte at a time.
    SlowBytes,
    /// This status, to another server.
    Redirect(u16),
    /// This status, to another path of this server.
    RedirectWithin(u16),
    /// Bytes that are no HTTP.
    Garbage,
    /// 200 with this body.
    Body(&'static str),
    /// A body that ends before it should.
    Truncated,
    /// This status, and a body of chunks without end.
    Endless(u16),
    /// A body that is announced as a TiB, and never ends.
    Huge,
    /// Header fields without end.
    EndlessHead,
    /// This status, and the request itself wherever an error is read from.
    Echo(u16),
}

/// Every fault that ends by itself.
pub(crate) const FAULTS: [Fault; 31] = [
    Fault::ClosedAtOnce,
    Fault::ClosedUnanswered,
    Fault::Status(400),
    Fault::Status(401),
    Fault::Status(403),
    Fault::Status(404),
    Fault::Status(429),
    Fault::Status(500),
    Fault::Status(503),
    Fault::SlowBytes,
    Fault::Redirect(301),
    Fault::Redirect(302),
    Fault::Redirect(303),
    Fault::Redirect(307),
    Fault::RedirectWithin(308),
    Fault::Garbage,
    Fault::Body(""),
    Fault::Body("<html>welcome</html>"),
    Fault::Body("null"),
    Fault::Body("[]"),
    Fault::Body("\"lnbcrt1\""),
    Fault::Body(r#"{"a":[1,{"b":null}]}"#),
    Fault::Body("\u{fffd}\0\u{1}"),
    Fault::Truncated,
    Fault::Endless(200),
    Fault::Endless(500),
    Fault::Huge,
    Fault::EndlessHead,
    Fault::Echo(200),
    Fault::Echo(400),
    Fault::Echo(500),
];

/// Where an answer may stop for good.
pub(crate) const SILENCES: [Fault; 3] = [
    Fault::Silent(""),
    Fault::Silent("HTTP/1.1 200 OK\r\ncontent-le"),
    Fault::Silent("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n{\"a"),
];

/// Runs until it is dropped.
pub(crate) struct FaultServer {
    address: SocketAddr,
    state: Arc<State>,
    tasks: [JoinHandle<()>; 2],
}

struct State {
    fault: Mutex<Fault>,
    /// Another server, where nobody has business.
    elsewhere: SocketAddr,
    was_followed: AtomicBool,
    /// How many requests came whole.
    requests: watch::Sender<usize>,
    last_request: Mutex<Vec<u8>>,
    /// How much of an answer without end was sent, in bytes.
    sent: AtomicU64,
}

impl FaultServer {
    pub(crate) async fn start(fault: Fault) -> Self {
        let here = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
        let there = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
        let address = |listener: &TcpListener| listener.local_addr().expect("a listener has an address");
        let state = Arc::new(State {
            fault: Mutex::new(fault),
            elsewhere: address(&there),
            was_followed: AtomicBool::new(false),
            requests: watch::Sender::new(0),
            last_request: Mutex::default(),
            sent: AtomicU64::new(0),
        });
        let address = address(&here);
        let trap = state.clone();
        let tasks = [
            tokio::spawn(accept(here, state.clone())),
            tokio::spawn(async move {
                while there.accept().await.is_ok() {
                    trap.was_followed.store(true, Ordering::SeqCst);
                }
            }),
        ];
        Self { address, state, tasks }
    }

    pub(crate) fn base_url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn set(&self, fault: Fault) {
        *self.state.fault.lock().unwrap_or_else(PoisonError::into_inner) = fault;
    }

    pub(crate) fn requests(&self) -> usize {
        *self.state.requests.borrow()
    }

    /// Waits until so many requests have come.
    pub(crate) async fn has_requests(&self, count: usize) {
        let mut requests = self.state.requests.subscribe();
        requests.wait_for(|requests| *requests >= count).await.expect("the server has the sender");
    }

    pub(crate) fn was_followed(&self) -> bool {
        self.state.was_followed.load(Ordering::SeqCst)
    }

    pub(crate) fn last_request(&self) -> String {
        let request = self.state.last_request.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&request).into_owned()
    }

    /// How much of answers without end it could send, in bytes.
    pub(crate) fn sent(&self) -> u64 {
        self.state.sent.load(Ordering::SeqCst)
    }
}

impl Drop for FaultServer {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        let state = state.clone();
        // A connection that fails is the client's matter.
        connections.spawn(async move { drop(serve(stream, &state).await) });
    }
}

async fn serve(mut stream: TcpStream, state: &State) -> io::Result<()> {
    let fault = || *state.fault.lock().unwrap_or_else(PoisonError::into_inner);
    stream.set_nodelay(true)?;
    if fault() == Fault::ClosedAtOnce {
        return Ok(());
    }
    while let Some(request) = read_request(&mut stream).await? {
        if request.windows(10).any(|window| window == b"/elsewhere") {
            state.was_followed.store(true, Ordering::SeqCst);
        }
        (*state.last_request.lock().unwrap_or_else(PoisonError::into_inner)).clone_from(&request);
        let fault = fault();
        if let Fault::Silent(bytes) = fault {
            stream.write_all(bytes.as_bytes()).await?;
        }
        state.requests.send_modify(|requests| *requests += 1);
        if !answer(&mut stream, fault, &request, state).await? {
            return stream.shutdown().await;
        }
    }
    Ok(())
}

/// A whole request; `None` at the end of the connection.
async fn read_request(stream: &mut TcpStream) -> io::Result<Option<Vec<u8>>> {
    let mut request = Vec::new();
    loop {
        if let Some(end) = request.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&request[..end]).to_ascii_lowercase();
            let length =
                head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
            let is_whole = if head.contains("\r\ntransfer-encoding: chunked") {
                request.ends_with(b"\r\n0\r\n\r\n")
            } else {
                request.len() >= end + 4 + length.unwrap_or(0_usize)
            };
            if is_whole {
                return Ok(Some(request));
            }
        }
        if request.len() > MAX_REQUEST || stream.read_buf(&mut request).await? == 0 {
            return Ok(None);
        }
    }
}

/// Answers; `false` where the connection is to be closed then.
async fn answer(stream: &mut TcpStream, fault: Fault, request: &[u8], state: &State) -> io::Result<bool> {
    let whole = |status: u16, fields: &str, body: &str| {
        let length = body.len();
        format!("HTTP/1.1 {status} Fault\r\n{fields}content-length: {length}\r\n\r\n{body}")
    };
    match fault {
        Fault::ClosedAtOnce | Fault::ClosedUnanswered => return Ok(false),
        Fault::Silent(_) => {
            // Until the client leaves.
            stream.read_u8().await?;
            return Ok(false);
        }
        Fault::Status(status) => {
            let retry_after = format!("retry-after: {RETRY_AFTER}\r\n");
            let fields = if status == 429 { &*retry_after } else { "" };
            stream.write_all(whole(status, fields, "no\n").as_bytes()).await?;
        }
        Fault::SlowBytes => {
            for byte in whole(401, "", "no\n").into_bytes() {
                stream.write_all(&[byte]).await?;
                tokio::task::yield_now().await;
            }
        }
        Fault::Redirect(status) => {
            let location = format!("location: http://{}/elsewhere\r\n", state.elsewhere);
            stream.write_all(whole(status, &location, "").as_bytes()).await?;
        }
        Fault::RedirectWithin(status) => {
            stream.write_all(whole(status, "location: /elsewhere\r\n", "").as_bytes()).await?;
        }
        Fault::Garbage => {
            stream.write_all(b"\x16\x03\x01\x00\xff\r\nnot HTTP\r\n\r\n").await?;
            return Ok(false);
        }
        Fault::Body(body) => {
            stream.write_all(whole(200, "content-type: application/json\r\n", body).as_bytes()).await?;
        }
        Fault::Truncated => {
            stream
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{\"payment_request\":\"ln")
                .await?;
            return Ok(false);
        }
        Fault::Endless(status) => {
            let head = format!("HTTP/1.1 {status} Fault\r\ntransfer-encoding: chunked\r\n\r\n");
            let chunk = format!("4000\r\n{}\r\n", " ".repeat(0x4000));
            return send_without_end(stream, &head, &chunk, state).await;
        }
        Fault::Huge => {
            let head = "HTTP/1.1 200 OK\r\ncontent-length: 1099511627776\r\n\r\n";
            return send_without_end(stream, head, &"[".repeat(0x4000), state).await;
        }
        Fault::EndlessHead => {
            let field = format!("x-field: {}\r\n", "a".repeat(1_000));
            return send_without_end(stream, "HTTP/1.1 200 OK\r\n", &field.repeat(16), state).await;
        }
        Fault::Echo(status) => {
            stream.write_all(whole(status, "", &echo(request)).as_bytes()).await?;
        }
    }
    Ok(true)
}

async fn send_without_end(stream: &mut TcpStream, head: &str, more: &str, state: &State) -> io::Result<bool> {
    stream.write_all(head.as_bytes()).await?;
    let mut sent = 0;
    while sent < ENDLESS {
        stream.write_all(more.as_bytes()).await?;
        sent += more.len() as u64;
        state.sent.fetch_add(more.len() as u64, Ordering::SeqCst);
    }
    Ok(false)
}

/// The request, in every field that an API's error has.
fn echo(request: &[u8]) -> String {
    let said = String::from_utf8_lossy(request);
    serde_json::json!({
        "status": "ERROR", "reason": said, "code": -1, "message": said, "detail": said, "details": [said],
        "error": { "code": -1, "message": said },
    })
    .to_string()
}

/// All that an error shows, down to its last cause.
pub(crate) fn said(error: &(dyn StdError + 'static)) -> String {
    let mut text = format!("{error:?} {error:#?}");
    let mut next = Some(error);
    while let Some(cause) = next {
        text = format!("{text} {cause} {cause:?}");
        next = cause.source();
    }
    text
}
