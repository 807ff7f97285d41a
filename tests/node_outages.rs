//! Every backend, over a server or relay that fails in every way: the
//! client is answered 503 in time and sold nothing, and who has paid already
//! is served as before.

mod support {
    pub mod http_nodes;
    pub mod sloppy;
}
#[allow(dead_code)] // the suite uses the rest
#[path = "../src/conformance/fault_server.rs"]
mod fault_server;

use std::error::Error as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Response;
use l402::{Cause, Refusal};
use tokio::net::TcpSocket;
use tokio::task::JoinSet;

use fault_server::{FAULTS, Fault, FaultServer, RETRY_AFTER, SILENCES};
use support::http_nodes::{Node, Site, nodes, relays};

/// How long a gate waits for a node here.
const TIME_LIMIT: Duration = Duration::from_millis(300);
/// What a busy machine may add.
const SLACK: Duration = Duration::from_secs(5);

/// Asserts that this sells nothing and tells no secret.
fn is_an_outage(name: &str, response: &Response<Bytes>, retry_after: &str, secrets: &[&str]) {
    assert_eq!(response.status(), 503, "{name}");
    assert_eq!(response.headers()["retry-after"], retry_after, "{name}");
    assert_eq!(response.headers()["cache-control"], "no-store", "{name}");
    assert!(!response.headers().contains_key("www-authenticate"), "{name}: an outage sells nothing");
    let refusal = response.extensions().get::<Refusal>().unwrap();
    assert_eq!(refusal.code(), "backend_unavailable", "{name}");
    let cause = response.extensions().get::<Cause>().unwrap();
    let mut told = format!("{cause:?} {cause} {response:?}");
    let mut next = cause.source();
    while let Some(error) = next {
        told = format!("{told} {error:?} {error}");
        next = error.source();
    }
    let body = std::str::from_utf8(response.body()).unwrap();
    assert!(!body.contains("lnbc"), "{name}: nor in the body");
    for secret in secrets {
        assert!(!told.contains(secret) && !body.contains(secret), "{name}: a secret is told");
    }
}

async fn meets(node: Arc<Node>, fault: Fault) {
    let name = format!("{}, {fault:?}", node.name);
    let server = FaultServer::start(fault).await;
    let site = Site::new((node.build)(&server.base_url()), TIME_LIMIT);
    let start = Instant::now();
    let response = site.ask(None).await;
    let waited = start.elapsed();
    assert!(waited < TIME_LIMIT + SLACK, "{name}: {waited:?}");
    let limit = RETRY_AFTER.to_string();
    // Of a silence the gate's own time limit makes an end.
    let is_limited = fault == Fault::Status(429);
    is_an_outage(&name, &response, if is_limited { &limit } else { "5" }, node.secrets);
    assert!(fault == Fault::ClosedAtOnce || server.requests() > 0, "{name}: the node was asked");
    assert_eq!(site.calls(), 0, "{name}: the handler is untouched");

    // Who has paid is served all the same.
    assert_eq!(site.ask(Some(site.gate.test_credential())).await.status(), 200, "{name}");
    assert_eq!(site.calls(), 1, "{name}");
}

#[tokio::test]
async fn whatever_a_node_does_the_client_is_answered_503_and_sold_nothing() {
    let mut cells = 0;
    for node in nodes().into_iter().chain(relays()).map(Arc::new) {
        let mut silent = JoinSet::new();
        for fault in SILENCES {
            silent.spawn(meets(node.clone(), fault));
        }
        for fault in FAULTS {
            meets(node.clone(), fault).await;
        }
        silent.join_all().await;
        cells += FAULTS.len() + SILENCES.len();
    }
    println!("{cells} cells of backends and faults");
}

#[tokio::test]
async fn a_node_that_is_not_there_is_a_503() {
    // Bound and not listening: nobody else gets the port.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let url = format!("http://{}", socket.local_addr().unwrap());
    for Node { name, build, secrets } in nodes().into_iter().chain(relays()) {
        let site = Site::new(build(&url), TIME_LIMIT);
        let response = site.ask(None).await;
        is_an_outage(name, &response, "5", secrets);
        let cause = response.extensions().get::<Cause>().unwrap();
        assert!(format!("{cause:?}").contains("Connect"), "{name}: {cause:?}");
        assert_eq!(site.calls(), 0, "{name}");
    }
}
