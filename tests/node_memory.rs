//! Thousands of requests over nodes that fail, answer without end or fall
//! silent leave nothing in memory. Alone in its process, whose size it measures.
#![cfg(target_os = "linux")]

mod support {
    pub mod http_nodes;
    pub mod sloppy;
}
#[allow(dead_code)] // the suite uses the rest
#[path = "../src/conformance/fault_server.rs"]
mod fault_server;

use std::time::Duration;

use fault_server::{FAULTS, FaultServer, SILENCES};
use support::http_nodes::{Node, Site, nodes, relays};

const ROUNDS: usize = 24;
/// Most that the process may grow, beyond what the first rounds took.
const MOST: usize = 16 * 1024 * 1024;

/// What the process has in memory, in bytes.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

#[tokio::test]
async fn nodes_that_fail_do_not_grow_the_process() {
    for Node { name, build, .. } in nodes().into_iter().chain(relays()) {
        let mut sites = Vec::new();
        for fault in FAULTS.into_iter().chain(SILENCES) {
            let server = FaultServer::start(fault).await;
            let site = Site::new(build(&server.base_url()), Duration::from_secs(600));
            sites.push((fault, server, site));
        }
        let mut requests = 0;
        let mut round = async || {
            for (fault, server, site) in &sites {
                requests += 1;
                if SILENCES.contains(fault) {
                    // The client leaves once the node was asked.
                    let asked = server.requests() + 1;
                    let leaving = tokio::spawn({
                        let site = site.clone();
                        async move { site.ask(None).await }
                    });
                    server.has_requests(asked).await;
                    leaving.abort();
                    assert!(leaving.await.unwrap_err().is_cancelled());
                } else {
                    assert_eq!(site.ask(None).await.status(), 503, "{name}, {fault:?}");
                }
            }
        };
        for _ in 0..ROUNDS / 4 {
            round().await;
        }
        let before = resident();
        for _ in 0..ROUNDS {
            round().await;
        }
        let after = resident();
        println!("{name}: {requests} requests, {} KiB before, {} KiB after", before >> 10, after >> 10);
        assert!(after < before + MOST, "{name}: from {before} to {after} bytes");
    }
}
