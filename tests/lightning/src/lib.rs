//! Two real Lightning nodes, over a chain that is a fixture.
//!
//! Both are LDK nodes, in one process and with a channel between them over
//! loopback: what they pay each other are HTLCs. [`lightning`] starts them once.

mod backend;
mod chain;
mod client;
mod node;
mod rpc;
mod store;
mod wallet;

use std::net::TcpListener;
use std::sync::{Arc, OnceLock};
use std::thread;

use ldk_node::Event;
use tokio::runtime::Runtime;

pub use backend::LdkBackend;
pub use chain::Chain;
pub use client::{Answer, get, serve};
pub use node::{Node, PayError};
pub use wallet::LdkWallet;

/// What the channel holds, of which half is the server's from the start.
const CHANNEL_SATS: u64 = 1_000_000;

/// What the keys of the server's node are derived from.
pub const SERVER_SEED: [u8; 64] = [2; 64];

/// A chain, and two nodes with a channel between them.
#[derive(Debug)]
pub struct Lightning {
    pub chain: Arc<Chain>,
    /// Takes payments.
    pub server: Node,
    /// Makes them.
    pub payer: Node,
}

impl Lightning {
    /// Has the nodes see the tip of the chain now, and not at their next look.
    ///
    /// # Panics
    /// They cannot read the chain.
    pub fn sync(&self) {
        thread::scope(|scope| {
            for node in [&self.server, &self.payer] {
                scope.spawn(|| node.sync(&self.chain));
            }
        });
    }
}

/// The nodes of this process, started on the first call. They live as long as
/// it does.
///
/// # Panics
/// They do not start.
pub fn lightning() -> &'static Lightning {
    static LIGHTNING: OnceLock<Lightning> = OnceLock::new();
    // A node blocks the thread that starts it, which one of a runtime must not be.
    LIGHTNING.get_or_init(|| thread::spawn(start).join().expect("two nodes and a channel"))
}

/// What the nodes and the chain run on: not the runtime of a test, which ends with it.
fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| Runtime::new().expect("a runtime"))
}

fn start() -> Lightning {
    let chain = Arc::new(Chain::new());
    let rpc = rpc::serve(&chain, runtime());
    let payer = Node::start([1; 64], rpc, |_| ());
    let address = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port");
    let server = Node::start(SERVER_SEED, rpc, |config| {
        config.listening_addresses = Some(vec![address.into()]);
        // The channel is ready before its funding has six confirmations.
        config.trusted_peers_0conf = vec![payer.ldk.node_id()];
    });

    chain.fund(payer.ldk.onchain_payment().new_address().expect("an address").script_pubkey());
    chain.mine(1);
    payer.sync(&chain);
    payer
        .ldk
        .open_channel(server.ldk.node_id(), address.into(), CHANNEL_SATS, Some(CHANNEL_SATS * 500), None)
        .expect("a channel");
    for node in [&payer, &server] {
        node.wait_for(|event| matches!(event, Event::ChannelReady { .. }));
    }
    chain.mine(1);
    let lightning = Lightning { chain, server, payer };
    lightning.server.pump();
    lightning.payer.pump();
    lightning
}
