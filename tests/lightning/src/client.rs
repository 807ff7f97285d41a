//! A server and a client, over a socket.

use std::net::SocketAddr;

use axum::Router;
use axum::body::Body;
use http::{HeaderValue, Request, StatusCode};
use http_body_util::BodyExt as _;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use l402::Challenge;
use tokio::net::{TcpListener, TcpStream};

/// Serves on a free port of loopback, as long as the runtime lives.
///
/// # Panics
/// There is no free port.
pub async fn serve(app: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

/// What a server answered.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: http::HeaderMap,
    pub body: String,
}

impl Answer {
    /// The challenge of a 402.
    ///
    /// # Panics
    /// There is none.
    pub fn challenge(&self) -> Challenge {
        assert_eq!(self.status, StatusCode::PAYMENT_REQUIRED, "{}", self.body);
        let header = self.headers["www-authenticate"].to_str().expect("text");
        header.parse().expect("a challenge")
    }
}

/// Asks for a path, on a connection of its own.
///
/// # Panics
/// There is no answer.
pub async fn get(server: SocketAddr, path: &str, credential: Option<&HeaderValue>) -> Answer {
    let stream = TcpStream::connect(server).await.expect("a server");
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
    tokio::spawn(connection);
    let mut request = Request::get(path).header("host", server.to_string());
    if let Some(credential) = credential {
        request = request.header("authorization", credential);
    }
    let request = request.body(Body::empty()).expect("a request");
    let (head, body) = sender.send_request(request).await.expect("an answer").into_parts();
    let body = body.collect().await.expect("a body").to_bytes();
    let body = String::from_utf8(body.to_vec()).expect("text");
    Answer { status: head.status, headers: head.headers, body }
}
