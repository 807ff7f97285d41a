//! Over every ledger there is: a request that is dropped, at whatever await,
//! leaves nothing reserved, and replicas of a shop serve one balance.

#![allow(missing_docs)]

#[cfg(any(feature = "postgres", feature = "redis"))]
#[path = "support/servers.rs"]
mod servers;
#[path = "support/svc.rs"]
mod svc;

use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use async_trait::async_trait;
use http::{Request, Response};
use l402::ledger::{
    Account, AccountId, LedgerError, OpenReservation, ReservationId, Reserve, Reserved, Revocations,
    Synchronous,
};
use l402::{Access, ChargeOn, Gate, L402Layer, Ledger, MemoryLedger, Offer, Price, Revocation, SqliteLedger};
use svc::{Paid, Shop, call, ok, outcome, request};
use tempfile::TempDir;
use tokio::sync::{Notify, watch};
use tokio::task::{JoinSet, yield_now};
use tower::{Layer, Service, service_fn};

/// Fails a test that would hang.
async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(30), future).await.expect("an end within 30 seconds")
}

/// What was asked of a ledger.
#[derive(Debug, Default)]
struct Calls {
    reserved: Vec<ReservationId>,
    /// Those reserved that were there for a while.
    opened: Vec<ReservationId>,
    committed: Vec<ReservationId>,
    released: Vec<ReservationId>,
}

/// Yields once before each operation and once after it, and notes it.
#[derive(Clone, Debug)]
struct Yielding {
    ledger: Arc<dyn Ledger>,
    calls: Arc<Mutex<Calls>>,
    /// Operations that have begun and not ended. One that was dropped between
    /// stays among them.
    running: watch::Sender<usize>,
}

impl Yielding {
    fn new(ledger: Arc<dyn Ledger>) -> Self {
        Self { ledger, calls: Arc::default(), running: watch::Sender::new(0) }
    }

    async fn around<T>(&self, operation: impl Future<Output = T> + Send) -> T {
        self.running.send_modify(|running| *running += 1);
        yield_now().await;
        let answer = operation.await;
        yield_now().await;
        self.running.send_modify(|running| *running -= 1);
        answer
    }

    fn note(&self, note: impl FnOnce(&mut Calls)) {
        note(&mut self.calls.lock().unwrap());
    }

    /// Waits until all that has begun has ended.
    async fn idle(&self) {
        within(self.running.subscribe().wait_for(|running| *running == 0)).await.unwrap();
    }

    /// Waits until it is idle, and gives what was asked since the last time.
    async fn settle(&self) -> Calls {
        self.idle().await;
        std::mem::take(&mut self.calls.lock().unwrap())
    }
}

#[async_trait]
impl Ledger for Yielding {
    fn instance(&self) -> Option<[u8; 16]> {
        self.ledger.instance()
    }

    fn revocations(&self) -> &Revocations {
        self.ledger.revocations()
    }

    async fn reserve(&self, ask: &Reserve) -> Result<Reserved, LedgerError> {
        self.note(|calls| calls.reserved.push(ask.id));
        let answer = self.around(self.ledger.reserve(ask)).await;
        if let Ok(Reserved::Open { .. }) = answer {
            self.note(|calls| calls.opened.push(ask.id));
        }
        answer
    }

    async fn commit(&self, id: &ReservationId) -> Result<(), LedgerError> {
        self.note(|calls| calls.committed.push(*id));
        self.around(self.ledger.commit(id)).await
    }

    async fn release(&self, id: &ReservationId, now: u64) -> Result<(), LedgerError> {
        self.note(|calls| calls.released.push(*id));
        self.around(self.ledger.release(id, now)).await
    }

    async fn credit(
        &self,
        account: &AccountId,
        units: u64,
        event_id: &str,
        expires_at: u64,
    ) -> Result<(), LedgerError> {
        self.around(self.ledger.credit(account, units, event_id, expires_at)).await
    }

    async fn account(&self, account: &AccountId) -> Result<Option<Account>, LedgerError> {
        self.around(self.ledger.account(account)).await
    }

    async fn revoke(&self, revocation: &Revocation) -> Result<(), LedgerError> {
        self.around(self.ledger.revoke(revocation)).await
    }

    async fn open_reservations(&self) -> Result<Vec<OpenReservation>, LedgerError> {
        self.around(self.ledger.open_reservations()).await
    }
}

struct Signal(Notify);

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        self.0.notify_one();
    }
}

/// When a future is dropped, after the last of its polls.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Moment {
    /// While what it waits for is on its way.
    AtOnce,
    /// When the ledger has done what it was asked, and nobody has seen it.
    Unread,
}

/// Polls a future this often, each time it asks for it, and drops it. Gives
/// what it came to, if it did.
async fn poll_and_drop<F: Future>(
    future: F,
    polls: usize,
    moment: Moment,
    ledger: &Yielding,
) -> Option<F::Output> {
    let signal = Arc::new(Signal(Notify::new()));
    let waker = Waker::from(signal.clone());
    let mut future = Box::pin(future);
    for poll in 0..polls {
        if poll > 0 {
            within(signal.0.notified()).await;
        }
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return Some(output);
        }
    }
    if moment == Moment::Unread {
        ledger.idle().await;
    }
    None
}

/// An inner service that is pending three times before it answers 200.
fn slow(
    calls: Arc<AtomicUsize>,
) -> impl Service<Request<()>, Response = Response<String>, Error = Infallible, Future: Send> + Clone {
    service_fn(move |_: Request<()>| {
        calls.fetch_add(1, Ordering::SeqCst);
        let mut left = 3;
        std::future::poll_fn(move |cx: &mut Context<'_>| {
            if left == 0 {
                return Poll::Ready(Ok(Response::new(String::new())));
            }
            left -= 1;
            cx.waker().wake_by_ref();
            Poll::Pending
        })
    })
}

async fn dropped_at_any_await_leaves_nothing_reserved(ledger: Arc<dyn Ledger>) {
    // What is charged where the inner service was called and did not answer.
    for (charge_on, used_if_called) in [(ChargeOn::NotServerError, 0), (ChargeOn::Admission, 1)] {
        for moment in [Moment::AtOnce, Moment::Unread] {
            let ledger = Yielding::new(ledger.clone());
            let shop = Shop::with_ledger(ledger.clone());
            let gate = Gate::builder(&shop.issuer, "svc", Offer::new(Price::sat(1), Access::uses(50)))
                .with_charge_on(charge_on.clone())
                .build()
                .unwrap();
            let (mut left_unread, mut left_in_inner, mut n) = (0, 0, 0);
            loop {
                let at = format!("{charge_on:?}, dropped {moment:?} after {n} polls");
                let paid = Paid::buy(&shop, &gate).await;
                let use_it = async || call(&mut ok().behind(&gate), request(Some(&paid.credential()))).await;
                // One use that a second release would give back.
                assert_eq!(outcome(&use_it().await.unwrap()), (200, None), "{at}");
                ledger.settle().await;

                let calls = Arc::new(AtomicUsize::new(0));
                let mut service = L402Layer::new(gate.clone()).layer(slow(calls.clone()));
                let response = call(&mut service, request(Some(&paid.credential())));
                let response = poll_and_drop(response, n, moment, &ledger).await;

                let asked = ledger.settle().await;
                assert_eq!(asked.reserved.len(), usize::from(n > 0), "{at}");
                let ended = [asked.committed, asked.released].concat();
                assert_eq!(ended, asked.reserved, "ended once and no other: {at}");
                assert_eq!(shop.open().await, 0, "{at}");
                let was_called = calls.load(Ordering::SeqCst) > 0;
                let used = match &response {
                    Some(response) => {
                        assert_eq!(outcome(response.as_ref().unwrap()), (200, None), "{at}");
                        1
                    }
                    None if was_called => {
                        left_in_inner += 1;
                        used_if_called
                    }
                    None => {
                        left_unread += asked.opened.len();
                        0
                    }
                };
                assert_eq!(shop.used(paid.hash()).await, 1 + used, "{at}");

                assert_eq!(outcome(&use_it().await.unwrap()), (200, None), "{at}");
                ledger.settle().await;
                assert_eq!(shop.used(paid.hash()).await, 2 + used, "{at}");
                if response.is_some() {
                    break;
                }
                n += 1;
            }
            assert!(left_in_inner >= 3, "{charge_on:?} {moment:?}: {left_in_inner}");
            // At once, the release may overtake its reserve.
            let was_unread = left_unread >= 1 || moment == Moment::AtOnce;
            assert!(was_unread, "{charge_on:?}: no use was given back before the inner service");
        }
    }
}

/// Two servers of one shop, each with its own handle of the store.
async fn replicas_serve_one_balance(handles: [Arc<dyn Ledger>; 2]) {
    // Few enough that, where they wait for each other and for a slow disk, none
    // comes to the ledger's time limit.
    const SOLD: usize = 8;
    let shops = handles.map(|ledger| Shop::with_key([9; 32], ledger));
    let gates = shops.each_ref().map(|shop| shop.gate("svc", Access::uses(SOLD as u64)));
    for seller in [0, 1] {
        let paid = Paid::buy(&shops[seller], &gates[seller]).await;
        let send = |replica: usize| {
            let (mut service, request) = (ok().behind(&gates[replica]), request(Some(&paid.credential())));
            async move { outcome(&call(&mut service, request).await.unwrap()) }
        };
        for replica in [0, 1] {
            assert_eq!(send(replica).await, (200, None), "sold at {seller}, used at {replica}");
        }
        let mut requests = JoinSet::new();
        for at in 0..2 * SOLD {
            requests.spawn(send(at % 2));
        }
        let (admitted, refused): (Vec<_>, Vec<_>) =
            within(requests.join_all()).await.into_iter().partition(|outcome| *outcome == (200, None));
        for refused in refused {
            assert_eq!(refused, (402, Some("used_up")), "sold at {seller}");
        }
        assert_eq!(admitted.len(), SOLD - 2, "sold at {seller}");
        for (replica, shop) in shops.iter().enumerate() {
            assert_eq!(send(replica).await, (402, Some("used_up")), "sold at {seller}, asked of {replica}");
            assert_eq!(shop.used(paid.hash()).await, SOLD as u64, "sold at {seller}, asked of {replica}");
        }
    }
}

async fn sqlite(dir: &TempDir) -> Arc<dyn Ledger> {
    let file = dir.path().join("uses.db");
    Arc::new(SqliteLedger::open_with(file, Synchronous::Normal).await.expect("the file opens"))
}

#[tokio::test]
async fn a_request_dropped_at_any_await_leaves_nothing_reserved_in_memory() {
    dropped_at_any_await_leaves_nothing_reserved(Arc::new(MemoryLedger::new())).await;
}

#[tokio::test]
async fn a_request_dropped_at_any_await_leaves_nothing_reserved_in_sqlite() {
    let dir = tempfile::tempdir().unwrap();
    dropped_at_any_await_leaves_nothing_reserved(sqlite(&dir).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_replicas_serve_one_balance_of_sqlite() {
    let dir = tempfile::tempdir().unwrap();
    replicas_serve_one_balance([sqlite(&dir).await, sqlite(&dir).await]).await;
}

#[cfg(feature = "postgres")]
mod postgres {
    use super::*;

    /// The URL of a database of the test's own.
    async fn database() -> String {
        let (server, name) = (servers::url("L402_TEST_POSTGRES"), servers::fresh_name());
        let (client, connection) =
            tokio_postgres::connect(&server, tokio_postgres::NoTls).await.expect("the server listens");
        tokio::spawn(connection);
        client.batch_execute(&format!("CREATE DATABASE {name} TEMPLATE template0")).await.expect("it is run");
        let (before, _) = server.rsplit_once('/').expect("the URL names a database");
        format!("{before}/{name}")
    }

    async fn connect(url: &str) -> Arc<dyn Ledger> {
        Arc::new(l402::PostgresLedger::connect(url).await.expect("the ledger opens"))
    }

    #[tokio::test]
    #[ignore = "needs a server: tests/servers/run"]
    async fn a_request_dropped_at_any_await_leaves_nothing_reserved_in_postgres() {
        dropped_at_any_await_leaves_nothing_reserved(connect(&database().await).await).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "needs a server: tests/servers/run"]
    async fn two_replicas_serve_one_balance_of_postgres() {
        let url = database().await;
        replicas_serve_one_balance([connect(&url).await, connect(&url).await]).await;
    }
}

#[cfg(feature = "redis")]
mod redis {
    use super::*;

    /// A handle of the store whose keys begin so.
    async fn connect(prefix: &str) -> Arc<dyn Ledger> {
        let builder = l402::RedisLedger::builder(&servers::url("L402_TEST_REDIS")).with_prefix(prefix);
        Arc::new(builder.connect().await.expect("the ledger opens"))
    }

    /// What the keys of the test begin with.
    fn prefix() -> String {
        format!("{{{}}}", servers::fresh_name())
    }

    #[tokio::test]
    #[ignore = "needs a server: tests/servers/run"]
    async fn a_request_dropped_at_any_await_leaves_nothing_reserved_in_redis() {
        dropped_at_any_await_leaves_nothing_reserved(connect(&prefix()).await).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "needs a server: tests/servers/run"]
    async fn two_replicas_serve_one_balance_of_redis() {
        let prefix = prefix();
        replicas_serve_one_balance([connect(&prefix).await, connect(&prefix).await]).await;
    }
}
