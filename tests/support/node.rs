//! A backend that counts what it is asked for, and does what it is told.

#![allow(dead_code, unreachable_pub, missing_docs)]

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use l402::{
    BackendError, BackendErrorKind, Capabilities, DevBackend, Invoice, InvoiceRequest, InvoiceState,
    PaymentBackend, PaymentHash,
};

/// What a node does when it is asked for an invoice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Good,
    Fails,
    Hangs,
    Takes(Duration),
    /// Asked too often, and again after this.
    Limits(Duration),
}

/// Clones are one node.
#[derive(Clone, Debug)]
pub struct Node {
    pub wallet: DevBackend,
    mode: Arc<std::sync::Mutex<Mode>>,
    asked: Arc<AtomicUsize>,
    looked_up: Arc<AtomicUsize>,
}

impl Node {
    pub fn new(wallet: DevBackend) -> Self {
        Self {
            wallet,
            mode: Arc::new(std::sync::Mutex::new(Mode::Good)),
            asked: Arc::default(),
            looked_up: Arc::default(),
        }
    }

    pub fn set(&self, mode: Mode) {
        *self.mode.lock().unwrap() = mode;
    }

    /// How many invoices it was asked for.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    pub fn looked_up(&self) -> usize {
        self.looked_up.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl PaymentBackend for Node {
    fn capabilities(&self) -> Capabilities {
        self.wallet.capabilities()
    }

    async fn create_invoice(&self, ask: &InvoiceRequest) -> Result<Invoice, BackendError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let mode = *self.mode.lock().unwrap();
        match mode {
            Mode::Good => {}
            Mode::Fails => return Err(BackendError::connect("refused")),
            Mode::Hangs => pending().await,
            Mode::Takes(time) => tokio::time::sleep(time).await,
            Mode::Limits(time) => {
                let kind = BackendErrorKind::RateLimited { retry_after: Some(time) };
                return Err(BackendError::new(kind, "too often"));
            }
        }
        self.wallet.create_invoice(ask).await
    }

    async fn look_up(&self, hash: PaymentHash, handle: Option<&str>) -> Result<InvoiceState, BackendError> {
        self.looked_up.fetch_add(1, Ordering::SeqCst);
        self.wallet.look_up(hash, handle).await
    }
}
