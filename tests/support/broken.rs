//! A backend that keeps its contract but for what a test bends.
#![allow(unreachable_pub)] // a module of each test binary that has it

use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::UNIX_EPOCH;

use async_trait::async_trait;
use l402::{
    BackendError, BackendErrorKind, Capabilities, Clock as _, DevBackend, Invoice, InvoiceRequest,
    InvoiceState, PaymentBackend, PaymentHash, SystemClock,
};
use tokio::sync::Notify;
use tokio::task::yield_now;

use super::bolt11::Bolt11;

type Made = Result<Invoice, BackendError>;
type Create = dyn Fn(&InvoiceRequest, Invoice) -> Made + Send + Sync;
type Told = Result<InvoiceState, BackendError>;

/// By the clock of a node, in unix seconds.
pub fn now() -> u64 {
    SystemClock.now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// What becomes of several calls at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtOnce {
    /// Nothing.
    Fine,
    /// The second one is refused.
    Refused,
    /// They answer what was asked last.
    Mixed,
    /// They wait for each other, also for one that was dropped.
    Waiting,
    /// They never end.
    Hanging,
}

pub struct Broken {
    pub node: DevBackend,
    pub capabilities: Capabilities,
    pub at_once: AtOnce,
    create: Box<Create>,
    state: Box<dyn Fn(PaymentHash, Told) -> Told + Send + Sync>,
    health: Box<dyn Fn() -> Result<(), BackendError> + Send + Sync>,
    debug: Box<dyn Fn() -> String + Send + Sync>,
    busy: AtomicBool,
    free: Notify,
    last: Mutex<Option<InvoiceRequest>>,
}

impl Broken {
    pub fn new() -> Self {
        let node = DevBackend::new();
        Self {
            capabilities: node.capabilities(),
            node,
            at_once: AtOnce::Fine,
            create: Box::new(|_, invoice| Ok(invoice)),
            state: Box::new(|_, told| told),
            health: Box::new(|| Ok(())),
            debug: Box::new(String::new),
            busy: AtomicBool::new(false),
            free: Notify::new(),
            last: Mutex::default(),
        }
    }

    pub fn creating(
        mut self,
        create: impl Fn(&InvoiceRequest, Invoice) -> Made + Send + Sync + 'static,
    ) -> Self {
        self.create = Box::new(create);
        self
    }

    /// Its invoices are bent.
    pub fn bolt11(bend: impl Fn(&mut Bolt11, &InvoiceRequest) + Send + Sync + 'static) -> Self {
        Self::new().creating(move |ask, _| {
            let mut bolt11 = Bolt11::as_asked(ask, now());
            bend(&mut bolt11, ask);
            Ok(bolt11.invoice())
        })
    }

    pub fn telling(mut self, state: impl Fn(PaymentHash, Told) -> Told + Send + Sync + 'static) -> Self {
        self.state = Box::new(state);
        self
    }

    pub fn with_health(mut self, kind: BackendErrorKind) -> Self {
        self.health = Box::new(move || Err(BackendError::new(kind, "no")));
        self
    }

    pub fn showing(mut self, debug: impl Fn() -> String + Send + Sync + 'static) -> Self {
        self.debug = Box::new(debug);
        self
    }

    pub fn at_once(mut self, at_once: AtOnce) -> Self {
        self.at_once = at_once;
        self
    }

    pub fn with_capabilities(mut self, change: impl FnOnce(Capabilities) -> Capabilities) -> Self {
        self.capabilities = change(self.capabilities);
        self
    }
}

impl fmt::Debug for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&(self.debug)())
    }
}

#[async_trait]
impl PaymentBackend for Broken {
    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    async fn create_invoice(&self, ask: &InvoiceRequest) -> Made {
        let mut ask = ask.clone();
        match self.at_once {
            AtOnce::Fine => {}
            AtOnce::Refused => {
                if self.busy.swap(true, Ordering::SeqCst) {
                    return Err(BackendError::new(BackendErrorKind::Backend, "busy"));
                }
                yield_now().await;
                self.busy.store(false, Ordering::SeqCst);
            }
            AtOnce::Mixed => {
                *self.last.lock().unwrap() = Some(ask.clone());
                yield_now().await;
                ask = self.last.lock().unwrap().clone().unwrap();
            }
            AtOnce::Waiting => {
                while self.busy.swap(true, Ordering::SeqCst) {
                    self.free.notified().await;
                }
                yield_now().await;
                self.busy.store(false, Ordering::SeqCst);
                self.free.notify_one();
            }
            AtOnce::Hanging => std::future::pending().await,
        }
        (self.create)(&ask, self.node.create_invoice(&ask).await?)
    }

    async fn look_up(&self, hash: PaymentHash, handle: Option<&str>) -> Told {
        (self.state)(hash, self.node.look_up(hash, handle).await)
    }

    async fn check_health(&self) -> Result<(), BackendError> {
        (self.health)()
    }
}
