//! An LDK node, and what becomes of its payments.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use l402::{PaymentHash, Preimage};
use ldk_node::bitcoin::Network;
use ldk_node::config::Config;
use ldk_node::lightning_invoice::Bolt11Invoice;
use ldk_node::logger::{LogRecord, LogWriter};
use ldk_node::{Builder, Event};
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;

use crate::chain::Chain;
use crate::runtime;
use crate::store::MemoryStore;

/// A node that runs until the process ends. Clones are the same node.
#[derive(Clone)]
pub struct Node {
    pub ldk: Arc<ldk_node::Node>,
    sent: Arc<Mutex<HashMap<PaymentHash, oneshot::Sender<Outcome>>>>,
    received: watch::Sender<HashMap<PaymentHash, u32>>,
}

type Outcome = Result<Preimage, PayError>;

/// Why there is no preimage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PayError {
    /// The payer's node sent nothing.
    NotSent(ldk_node::NodeError),
    /// An HTLC was sent and came back, or found no way.
    Failed(String),
}

impl Node {
    /// Starts a node with these keys, on the chain served at this address.
    pub(crate) fn start(seed: [u8; 64], rpc: SocketAddr, configure: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config { network: Network::Regtest, ..Config::default() };
        // Else 25,000 sat of reserve for each channel.
        config.anchor_channels_config = None;
        configure(&mut config);
        let mut builder = Builder::from_config(config);
        builder
            .set_runtime(runtime().handle().clone())
            .set_custom_logger(Arc::new(Log))
            .set_entropy_seed_bytes(seed)
            .set_chain_source_bitcoind_rpc(
                rpc.ip().to_string(),
                rpc.port(),
                "user".to_owned(),
                "password".to_owned(),
            );
        let ldk = builder.build_with_store(Arc::new(MemoryStore::default())).expect("a node");
        ldk.start().expect("a chain");
        let received = watch::Sender::new(HashMap::new());
        Self { ldk: Arc::new(ldk), sent: Arc::default(), received }
    }

    /// Reads the chain up to its tip.
    pub(crate) fn sync(&self, chain: &Chain) {
        let tip = chain.tip();
        // A look that was under way began before the last block, maybe.
        while self.ldk.status().current_best_block.block_hash != tip {
            self.ldk.sync_wallets().expect("the chain");
        }
    }

    /// Takes events out of the queue up to the one that is meant.
    pub(crate) fn wait_for(&self, is_meant: impl Fn(&Event) -> bool) {
        loop {
            let event = runtime().block_on(async { soon(self.ldk.next_event_async()).await });
            self.ldk.event_handled().expect("a store in memory");
            if is_meant(&event) {
                return;
            }
        }
    }

    /// Tells the payments from now on what became of them.
    pub(crate) fn pump(&self) {
        let node = self.clone();
        thread::spawn(move || {
            loop {
                let event = node.ldk.wait_next_event();
                node.ldk.event_handled().expect("a store in memory");
                node.note(&event);
            }
        });
    }

    fn note(&self, event: &Event) {
        match event {
            Event::PaymentSuccessful { payment_hash, payment_preimage: Some(preimage), .. } => {
                self.ended(payment_hash.0, Ok(Preimage::from_bytes(preimage.0)));
            }
            Event::PaymentFailed { payment_hash: Some(hash), reason, .. } => {
                self.ended(hash.0, Err(PayError::Failed(format!("{reason:?}"))));
            }
            Event::PaymentReceived { payment_hash, .. } => self.received.send_modify(|received| {
                *received.entry(payment_hash.0.into()).or_default() += 1;
            }),
            _ => {}
        }
    }

    fn ended(&self, hash: [u8; 32], outcome: Outcome) {
        if let Some(payment) = self.sent().remove(&hash.into()) {
            // Whoever does not wait for it has lost interest.
            let _ = payment.send(outcome);
        }
    }

    fn sent(&self) -> MutexGuard<'_, HashMap<PaymentHash, oneshot::Sender<Outcome>>> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Pays an invoice.
    ///
    /// # Errors
    /// There was no payment.
    ///
    /// # Panics
    /// The text is no invoice, or the payment hangs.
    pub async fn pay(&self, bolt11: &str) -> Result<Preimage, PayError> {
        let invoice: Bolt11Invoice = bolt11.parse().expect("an invoice");
        let outcome = {
            // Held until the payment is known: its event may be there before.
            let mut sent = self.sent();
            let id = self.ldk.bolt11_payment().send(&invoice, None).map_err(PayError::NotSent)?;
            let (sender, outcome) = oneshot::channel();
            sent.insert(id.0.into(), sender);
            outcome
        };
        soon(outcome).await.expect("the node lives as long as the process")
    }

    /// What it can send over its channel, in msat.
    pub fn spendable_msat(&self) -> u64 {
        self.ldk.list_channels().iter().map(|channel| channel.outbound_capacity_msat).sum()
    }

    /// Waits until the node has the money of this payment. The payer has the
    /// preimage a moment before.
    ///
    /// # Panics
    /// It does not come.
    pub async fn has_received(&self, hash: PaymentHash) {
        let mut received = self.received.subscribe();
        soon(received.wait_for(|received| received.contains_key(&hash)))
            .await
            .expect("the node has the sender");
    }

    /// How many payments of this hash it has taken.
    pub fn payments(&self, hash: PaymentHash) -> u32 {
        self.received.borrow().get(&hash).copied().unwrap_or_default()
    }
}

/// Fails where a test would hang.
async fn soon<T>(what: impl Future<Output = T>) -> T {
    let outcome = timeout(Duration::from_secs(60), what).await;
    outcome.expect("it takes a minute: run it with LDK_LOG set, to see why")
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.ldk.node_id())
    }
}

/// Prints what a node logs, where `LDK_LOG` is set.
struct Log;

impl LogWriter for Log {
    fn log(&self, record: LogRecord<'_>) {
        if std::env::var_os("LDK_LOG").is_some() {
            eprintln!("{} {}:{} {}", record.level, record.module_path, record.line, record.args);
        }
    }
}
