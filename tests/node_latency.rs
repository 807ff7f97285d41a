//! Who has paid is served as fast as ever while a node hangs. Alone in its
//! process, whose time it measures.

mod support {
    pub mod http_nodes;
    #[cfg(feature = "nwc")]
    pub mod nwc;
    pub mod sloppy;
}
#[allow(dead_code)] // the suite uses the rest
#[path = "../src/conformance/fault_server.rs"]
mod fault_server;

use std::sync::Arc;
use std::time::{Duration, Instant};

use l402::{PaymentBackend, Refusal};
#[cfg(feature = "nwc")]
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use fault_server::{FaultServer, SILENCES};
use support::http_nodes::{Node, Site, nodes};

/// Most that a gate asks for at once.
const IN_FLIGHT: usize = 64;

/// The latency that 50, and 99, of 100 paid requests stay below.
async fn latency(site: &Site) -> [Duration; 2] {
    const REQUESTS: usize = 1_000;
    let mut times = Vec::with_capacity(REQUESTS);
    for _ in 0..REQUESTS {
        let credential = site.gate.test_credential();
        let start = Instant::now();
        assert_eq!(site.ask(Some(credential)).await.status(), 200);
        times.push(start.elapsed());
    }
    times.sort();
    [50, 99].map(|percent| times[REQUESTS * percent / 100])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn paid_requests_keep_their_latency_while_the_node_hangs() {
    for Node { name, build, .. } in nodes() {
        let server = FaultServer::start(SILENCES[0]).await;
        keeps_its_latency(name, build(&server.base_url()), server.has_requests(IN_FLIGHT)).await;
    }
    #[cfg(feature = "nwc")]
    {
        let heard = Arc::new(Semaphore::new(0));
        let relay = support::nwc::Relay::start().await;
        let note = heard.clone();
        let silent = move |_: &str, _| {
            note.add_permits(1);
            None
        };
        let wallet = support::nwc::Wallet::bending(&relay, silent).await;
        let all = u32::try_from(IN_FLIGHT).unwrap();
        let all_heard = async { drop(heard.acquire_many(all).await.unwrap()) };
        keeps_its_latency("NWC", Arc::new(wallet.backend()), all_heard).await;
    }
}

/// Measures it before and while so many wait for the node, which hears of them.
async fn keeps_its_latency(
    name: &str,
    backend: Arc<dyn PaymentBackend>,
    all_heard: impl Future<Output = ()>,
) {
    let site = Site::new(backend, Duration::from_secs(600));
    latency(&site).await;
    let [idle_p50, idle] = latency(&site).await;

    let mut hanging = JoinSet::new();
    for _ in 0..IN_FLIGHT {
        let site = site.clone();
        hanging.spawn(async move { site.ask(None).await });
    }
    all_heard.await;
    let [busy_p50, busy] = latency(&site).await;
    assert!(hanging.try_join_next().is_none(), "{name}: {IN_FLIGHT} are still in flight");
    println!("{name}: a paid request takes {idle_p50:?} (p99 {idle:?}) while nobody else asks");
    println!("{name}: {busy_p50:?} (p99 {busy:?}) while {IN_FLIGHT} wait for a node that hangs");
    // What a scheduler takes now and then, and not what a node takes.
    let most = idle * 20 + Duration::from_millis(20);
    assert!(busy < most, "{name}: {busy:?}, {idle:?} idle");
    let most = idle_p50 * 4 + Duration::from_millis(1);
    assert!(busy_p50 < most, "{name}: {busy_p50:?}, {idle_p50:?} idle, in the median");

    // One more is told at once that it is too many.
    let response = site.ask(None).await;
    assert_eq!(response.status(), 503, "{name}");
    assert_eq!(response.extensions().get::<Refusal>().unwrap().code(), "busy", "{name}");
}
