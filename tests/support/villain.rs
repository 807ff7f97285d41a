//! A server on loopback that says anything at all: what it writes is not made
//! by a server library.
#![allow(dead_code, unreachable_pub)] // each test binary uses a part

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// What it says to a request.
pub enum Reply {
    /// This, and then it hangs up.
    Says(Vec<u8>),
    /// This, and then the other for as long as somebody listens.
    Endless(Vec<u8>, Vec<u8>),
    /// The same, once a second.
    Slow(Vec<u8>, Vec<u8>),
    /// This, and then nothing more, and it does not hang up.
    Holds(Vec<u8>),
}

type Script = Arc<dyn Fn(usize, &str) -> Reply + Send + Sync>;

pub struct Villain {
    pub address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
    written: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<()>,
}

impl Villain {
    /// Answers each request by its number, from 0 on, and its head.
    pub async fn new(script: impl Fn(usize, &str) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (heads, written) = (Arc::<Mutex<Vec<String>>>::default(), Arc::<AtomicU64>::default());
        let (script, seen, count): (Script, _, _) = (Arc::new(script), heads.clone(), written.clone());
        let task = tokio::spawn(async move {
            let mut talks = tokio::task::JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                talks.spawn(talk(socket, script.clone(), seen.clone(), count.clone()));
            }
        });
        Self { address, heads, written, task }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The heads of all requests, in lower case but for the values.
    pub fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }

    /// The values of Authorization that it was sent.
    pub fn credentials(&self) -> Vec<String> {
        let heads = self.heads();
        let lines = heads.iter().flat_map(|head| head.lines());
        lines.filter_map(|line| line.strip_prefix("authorization: ").map(str::to_owned)).collect()
    }

    /// How many bytes it got rid of.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::SeqCst)
    }
}

impl Drop for Villain {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn talk(
    mut socket: TcpStream,
    script: Script,
    heads: Arc<Mutex<Vec<String>>>,
    written: Arc<AtomicU64>,
) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = socket.read_u8().await else { return };
        head.push(byte);
    }
    let head = String::from_utf8(head).unwrap();
    let at = {
        let mut heads = heads.lock().unwrap();
        heads.push(head.clone());
        heads.len() - 1
    };
    let mut say = async |bytes: &[u8]| {
        let is_heard = socket.write_all(bytes).await.is_ok();
        written.fetch_add(bytes.len() as u64, Ordering::SeqCst);
        is_heard
    };
    match script(at, &head) {
        Reply::Says(bytes) => drop(say(&bytes).await),
        Reply::Endless(bytes, again) => {
            let mut goes_on = say(&bytes).await;
            while goes_on {
                goes_on = say(&again).await;
            }
        }
        Reply::Slow(bytes, again) => {
            let mut goes_on = say(&bytes).await;
            while goes_on {
                tokio::time::sleep(Duration::from_secs(1)).await;
                goes_on = say(&again).await;
            }
        }
        Reply::Holds(bytes) => {
            say(&bytes).await;
            // Until the other side is gone.
            let _ = socket.read_to_end(&mut Vec::new()).await;
        }
    }
}

/// An answer with these lines and this body, whole.
pub fn answer(status: u16, lines: &[String], body: &str) -> Vec<u8> {
    let mut text = head(status, lines);
    text.truncate(text.len() - 2);
    [text, format!("content-length: {}\r\n\r\n{body}", body.len())].concat().into_bytes()
}

/// The head of an answer whose body ends with the connection.
pub fn head(status: u16, lines: &[String]) -> String {
    let lines: String = lines.iter().flat_map(|line| [line, "\r\n"]).collect();
    format!("HTTP/1.1 {status} Whatever\r\nconnection: close\r\n{lines}\r\n")
}

/// A line that asks for a payment.
pub fn asks(challenge: &str) -> String {
    format!("www-authenticate: {challenge}")
}
