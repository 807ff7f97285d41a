//! The servers that `tests/servers/run` starts, and a way to them that can be cut.
#![allow(dead_code, unreachable_pub)] // each test binary uses a part

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Where a server is. A test that is asked for and has none fails.
pub fn url(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| {
        panic!("{variable} is not set: tests/servers/run cargo test --all-features -- --include-ignored")
    })
}

/// A name that no other test uses, nor this one the time before.
pub fn fresh_name() -> String {
    let random = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), ());
    format!("t{}_{random:x}", std::process::id())
}

/// Forwards a loopback port to the server of a URL.
pub struct Proxy {
    address: SocketAddr,
    server: SocketAddr,
    is_silent: Arc<AtomicBool>,
    tasks: JoinSet<()>,
}

impl Proxy {
    /// The proxy, and the URL through it.
    pub async fn before(url: &str) -> (Self, String) {
        let (_, rest) = url.split_once('@').expect("the URL has a password");
        let host = rest.split('/').next().expect("split gives a part");
        let server = host.parse().expect("the URL has an address and a port");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound port");
        let mut proxy = Self { address, server, is_silent: Arc::default(), tasks: JoinSet::new() };
        proxy.serve(listener);
        (proxy, url.replace(host, &address.to_string()))
    }

    fn serve(&mut self, listener: TcpListener) {
        let (server, is_silent) = (self.server, self.is_silent.clone());
        self.tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (client, _) = listener.accept().await.expect("a connection");
                let is_silent = is_silent.clone();
                connections.spawn(async move {
                    let server = TcpStream::connect(server).await.expect("the server listens");
                    let (client_in, client_out) = client.into_split();
                    let (server_in, server_out) = server.into_split();
                    tokio::join!(
                        forward(client_in, server_out, &is_silent),
                        forward(server_in, client_out, &is_silent)
                    );
                });
            }
        });
    }

    /// Closes all connections and the port.
    pub async fn stop(&mut self) {
        self.tasks.shutdown().await;
    }

    /// Opens the port again.
    pub async fn start(&mut self) {
        self.serve(TcpListener::bind(self.address).await.expect("the port is free again"));
    }

    /// Keeps the connections open, and what comes through them to itself.
    pub fn set_silent(&self, is_silent: bool) {
        self.is_silent.store(is_silent, Ordering::SeqCst);
    }
}

async fn forward(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, is_silent: &AtomicBool) {
    let mut bytes = [0; 4096];
    while let Ok(read @ 1..) = from.read(&mut bytes).await {
        if !is_silent.load(Ordering::SeqCst) && to.write_all(&bytes[..read]).await.is_err() {
            return;
        }
    }
}
