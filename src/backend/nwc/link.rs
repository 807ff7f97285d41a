//! One connection to a relay: a websocket, and the task that reads it until
//! nobody uses it any more.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use secp256k1::XOnlyPublicKey;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use super::event::{Event, INFO, RESPONSE};
use super::message::FromRelay;
use super::pending::Pending;
use super::uri::Relay;
use crate::backend::{BackendError, BackendErrorKind};

/// Longest message that is read, in bytes.
const MAX_MESSAGE: usize = 64 * 1024;
const READ_BUFFER: usize = 8 * 1024;
/// Requests that may wait to be written.
const QUEUE: usize = 64;
/// Most messages between two answers. A relay that sends more floods us.
const MAX_UNASKED: u32 = 4_096;
/// How long a relay may take to accept what is sent to it.
const SEND_TIME_LIMIT: Duration = Duration::from_secs(5);
/// How long a connection is kept while nobody calls.
const IDLE: Duration = Duration::from_secs(60);
/// How far the wallet's clock may be behind ours, in seconds. What it answered
/// before that is not asked for.
const CLOCK_SKEW: u64 = 600;

/// The names of our two subscriptions.
const INFO_ID: &str = "info";
const ANSWERS_ID: &str = "answers";

type Socket = WebSocketStream<Box<dyn Stream>>;

/// What a websocket runs over: TCP, or TLS.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A connection to a relay. It ends with its last clone, or after a minute
/// without a call.
#[derive(Clone)]
pub(super) struct Link {
    outgoing: mpsc::Sender<String>,
    pending: Arc<Pending>,
    /// What the wallet says of itself.
    pub(super) info: Arc<Event>,
}

impl Link {
    /// Connects to a relay, asks it for the wallet's answers to us, and reads
    /// what the wallet says of itself. Nothing goes on if this is dropped.
    pub(super) async fn open(
        relay: &Relay,
        tls: &TlsConnector,
        wallet: XOnlyPublicKey,
        client: XOnlyPublicKey,
        now: u64,
    ) -> Result<Self, BackendError> {
        let mut socket = dial(relay, tls).await?;
        let since = now.saturating_sub(CLOCK_SKEW);
        let answers = json!({ "kinds": [RESPONSE], "authors": [wallet.to_string()], "#p": [client.to_string()], "since": since });
        let info = json!({ "kinds": [INFO], "authors": [wallet.to_string()], "limit": 1 });
        for ask in [json!(["REQ", ANSWERS_ID, answers]), json!(["REQ", INFO_ID, info])] {
            socket.send(Message::text(ask.to_string())).await.map_err(|error| unreached(&error))?;
        }
        let info = read_info(&mut socket, &wallet).await?;
        let close = json!(["CLOSE", INFO_ID]).to_string();
        socket.send(Message::text(close)).await.map_err(|error| unreached(&error))?;

        let (outgoing, queue) = mpsc::channel(QUEUE);
        let pending = Arc::<Pending>::default();
        tokio::spawn(run(socket, queue, Reader { pending: pending.clone(), wallet }));
        Ok(Self { outgoing, pending, info: Arc::new(info) })
    }

    /// Whether it can be used, as far as is known.
    pub(super) fn is_open(&self) -> bool {
        !self.outgoing.is_closed() && !self.pending.is_abandoned()
    }

    /// Sends a request and waits for the wallet's answer to it, at most until
    /// `deadline`. A drop leaves nothing behind.
    pub(super) async fn ask(&self, request: &Event, deadline: Instant) -> Result<Event, BackendError> {
        let (_waiting, answer) = self.pending.wait(&request.id)?;
        let sent = async {
            let text = json!(["EVENT", request]).to_string();
            self.outgoing
                .send(text)
                .await
                .map_err(|_| BackendError::connect("relay closed the connection"))?;
            answer.await.unwrap_or_else(|_| {
                let what = "relay closed the connection before the wallet answered";
                Err(BackendError::new(BackendErrorKind::InvalidResponse, what))
            })
        };
        timeout_at(deadline, sent).await.unwrap_or_else(|_| Err(BackendError::timeout()))
    }
}

/// Reads and writes until the relay closes or floods, or nobody calls.
async fn run(mut socket: Socket, mut queue: mpsc::Receiver<String>, reader: Reader) {
    enum Next {
        Write(Option<String>),
        Read(Option<tungstenite::Result<Message>>),
        Idle,
    }
    let mut idle = pin!(sleep(IDLE));
    let mut unasked = 0;
    while unasked < MAX_UNASKED {
        let next = poll_fn(|cx| {
            if let Poll::Ready(text) = queue.poll_recv(cx) {
                return Poll::Ready(Next::Write(text));
            }
            if let Poll::Ready(message) = socket.poll_next_unpin(cx) {
                return Poll::Ready(Next::Read(message));
            }
            idle.as_mut().poll(cx).map(|()| Next::Idle)
        });
        match next.await {
            Next::Write(Some(text)) => {
                idle.as_mut().reset(Instant::now() + IDLE);
                let sent = timeout(SEND_TIME_LIMIT, socket.send(Message::text(text))).await;
                if !matches!(sent, Ok(Ok(()))) {
                    return;
                }
            }
            Next::Read(Some(Ok(message))) => {
                match message.to_text().map_or(Read::Noise, |text| reader.read(text)) {
                    Read::Answer => unasked = 0,
                    Read::Noise => unasked += 1,
                    Read::End => return,
                }
            }
            Next::Write(None) | Next::Read(_) | Next::Idle => return,
        }
    }
}

/// What a message was.
enum Read {
    Answer,
    Noise,
    /// No answer will come any more.
    End,
}

/// Hands answers to those who wait for them. Who still waits when it is
/// dropped, with the task, is told.
struct Reader {
    pending: Arc<Pending>,
    wallet: XOnlyPublicKey,
}

impl Reader {
    fn read(&self, text: &str) -> Read {
        self.pending.hear();
        match FromRelay::parse(text) {
            Some(FromRelay::Event(event)) => {
                let Some(id) = event.tag("e").filter(|id| self.pending.contains(id)) else {
                    return Read::Noise;
                };
                if event.kind != RESPONSE || !event.is_of(&self.wallet) {
                    return Read::Noise;
                }
                let id = id.to_owned();
                self.finish(&id, Ok(event))
            }
            Some(FromRelay::Refused { id, error }) => self.finish(&id, Err(error)),
            Some(FromRelay::Closed { id, .. }) if id == ANSWERS_ID => Read::End,
            _ => Read::Noise,
        }
    }

    fn finish(&self, id: &str, answer: Result<Event, BackendError>) -> Read {
        if self.pending.finish(id, answer) { Read::Answer } else { Read::Noise }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.pending.clear();
    }
}

/// What the wallet says of itself, once the relay serves both subscriptions.
async fn read_info(socket: &mut Socket, wallet: &XOnlyPublicKey) -> Result<Event, BackendError> {
    let (mut info, mut is_asked, mut is_served) = (None::<Event>, false, false);
    for _ in 0..MAX_UNASKED {
        if is_asked && is_served {
            return info.ok_or_else(|| {
                BackendError::connect(
                    "relay has no word of the wallet (kind 13194): is the connection still in it?",
                )
            });
        }
        let message = match socket.next().await {
            Some(Ok(message)) => message,
            Some(Err(error)) => return Err(unreached(&error)),
            None => return Err(BackendError::connect("relay closed the connection")),
        };
        match message.to_text().ok().and_then(FromRelay::parse) {
            Some(FromRelay::Event(event))
                if event.kind == INFO
                    && event.is_of(wallet)
                    && info.as_ref().is_none_or(|info| info.created_at < event.created_at) =>
            {
                info = Some(event);
            }
            Some(FromRelay::Stored(id)) if id == INFO_ID => is_asked = true,
            Some(FromRelay::Stored(id)) if id == ANSWERS_ID => is_served = true,
            Some(FromRelay::Closed { error, .. }) => return Err(error),
            _ => {}
        }
    }
    Err(BackendError::connect("relay floods us"))
}

async fn dial(relay: &Relay, tls: &TlsConnector) -> Result<Socket, BackendError> {
    let tcp = TcpStream::connect((&*relay.host, relay.port)).await.map_err(BackendError::connect)?;
    tcp.set_nodelay(true).map_err(BackendError::connect)?;
    let stream: Box<dyn Stream> = if relay.is_tls {
        let name = ServerName::try_from(relay.host.clone()).map_err(BackendError::connect)?;
        Box::new(tls.connect(name, tcp).await.map_err(BackendError::connect)?)
    } else {
        Box::new(tcp)
    };
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(0)
        .max_write_buffer_size(4 * MAX_MESSAGE)
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE));
    let opened = client_async_with_config(relay.uri.clone(), stream, Some(config)).await;
    opened.map(|(socket, _)| socket).map_err(|error| unreached(&error))
}

/// Says what the websocket's error is, without what the relay sent.
fn unreached(error: &tungstenite::Error) -> BackendError {
    let (kind, what) = match error {
        tungstenite::Error::Http(answer) => {
            let kind = match answer.status().as_u16() {
                401 | 403 => BackendErrorKind::Auth,
                429 => BackendErrorKind::rate_limited(answer.headers()),
                _ => BackendErrorKind::Connect,
            };
            (kind, format!("relay answers status {}", answer.status().as_u16()))
        }
        tungstenite::Error::Io(error) => (BackendErrorKind::Connect, error.to_string()),
        tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed => {
            (BackendErrorKind::Connect, "relay closed the connection".to_owned())
        }
        tungstenite::Error::Capacity(_) => (BackendErrorKind::Connect, "relay sends too much".to_owned()),
        _ => (BackendErrorKind::Connect, "relay does not speak websocket".to_owned()),
    };
    BackendError::new(kind, what)
}
