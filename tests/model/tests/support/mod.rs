//! A shop whose ledger is watched, and ledgers that are wrong.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use http::HeaderValue;
use l402::ledger::{
    Account, AccountId, LedgerError, OpenReservation, ReservationId, Reserve, Reserved, Revocations,
    release_cap,
};
use l402::{
    Access, BackendError, Capabilities, Entropy, FixedClock, Gate, Invoice, InvoiceRequest, Issuer, KeyRing,
    Ledger, MemoryLedger, Network, Offer, PaymentBackend, Price, Revocation, RootKey,
};
use shuttle::future::yield_now;
use shuttle::rand::{Rng, thread_rng};

pub const NOW: u64 = 1_900_000_000;

pub fn chance(p: f64) -> bool {
    thread_rng().gen_bool(p)
}

/// Lets others go first, a few times or not at all.
pub async fn pause() {
    while chance(0.5) {
        yield_now().await;
    }
}

#[derive(Debug)]
struct NoNode;

#[async_trait]
impl PaymentBackend for NoNode {
    fn capabilities(&self) -> Capabilities {
        Capabilities::node(Network::Regtest)
    }

    async fn create_invoice(&self, _: &InvoiceRequest) -> Result<Invoice, BackendError> {
        Err(BackendError::connect("nothing is sold here"))
    }
}

/// The same in every schedule, so that a schedule can be run again.
#[derive(Debug, Default)]
struct Counter(AtomicU64);

impl Entropy for Counter {
    fn fill(&self, bytes: &mut [u8]) {
        let n = self.0.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        bytes.iter_mut().zip(n.iter().cycle()).for_each(|(byte, n)| *byte = *n);
    }
}

/// An issuer, its gate, and a credential that was sold with this many uses.
pub fn shop(ledger: Watched, sold: u64) -> (Issuer, Gate, HeaderValue) {
    let issuer = Issuer::builder(KeyRing::new(RootKey::new([7; 32]).unwrap()), NoNode)
        .with_network(Network::Regtest)
        .with_clock(FixedClock::at(NOW))
        .with_entropy(Counter::default())
        .with_ledger(ledger)
        .build()
        .unwrap();
    let gate = Gate::new(&issuer, "svc", Offer::new(Price::sat(1), Access::uses(sold))).unwrap();
    let credential = gate.test_credential();
    (issuer, gate, credential)
}

/// What became of each operation.
#[derive(Debug, Default)]
pub struct Seen {
    begun: usize,
    done: usize,
    account: Option<AccountId>,
    pub opened: Vec<ReservationId>,
    pub committed: Vec<ReservationId>,
    pub released: Vec<ReservationId>,
}

impl Seen {
    fn is_idle(&self) -> bool {
        self.begun == self.done
    }
}

/// A ledger whose operations take a while before and after their effect, or
/// none at all. After each effect it sees that no more is used than was sold.
#[derive(Clone, Debug)]
pub struct Watched {
    pub inner: Arc<dyn Ledger>,
    // Of std: held across no step of a schedule.
    seen: Arc<Mutex<Seen>>,
}

impl Watched {
    pub fn over(inner: impl Ledger + 'static) -> Self {
        Self { inner: Arc::new(inner), seen: Arc::default() }
    }

    pub fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap()
    }

    /// Until every operation that has begun is done: nobody waits for some.
    pub async fn settled(&self) {
        while !self.seen().is_idle() {
            yield_now().await;
        }
    }

    pub async fn used(&self) -> u64 {
        let Some(account) = self.seen().account else { return 0 };
        let Some(account) = self.inner.account(&account).await.unwrap() else { return 0 };
        assert!(account.used <= account.limit, "miscounted: {account:?}");
        account.used
    }

    async fn before(&self) {
        self.seen().begun += 1;
        pause().await;
    }

    async fn after(&self) {
        self.used().await;
        pause().await;
        self.seen().done += 1;
    }
}

#[async_trait]
impl Ledger for Watched {
    fn instance(&self) -> Option<[u8; 16]> {
        self.inner.instance()
    }

    fn revocations(&self) -> &Revocations {
        self.inner.revocations()
    }

    async fn reserve(&self, ask: &Reserve) -> Result<Reserved, LedgerError> {
        self.seen().account = Some(ask.id.account());
        self.before().await;
        let reserved = self.inner.reserve(ask).await?;
        if matches!(reserved, Reserved::Open { .. }) {
            self.seen().opened.push(ask.id);
        }
        self.after().await;
        Ok(reserved)
    }

    async fn commit(&self, id: &ReservationId) -> Result<(), LedgerError> {
        self.seen().committed.push(*id);
        self.before().await;
        self.inner.commit(id).await?;
        self.after().await;
        Ok(())
    }

    async fn release(&self, id: &ReservationId, now: u64) -> Result<(), LedgerError> {
        self.seen().released.push(*id);
        self.before().await;
        self.inner.release(id, now).await?;
        self.after().await;
        Ok(())
    }

    async fn credit(&self, _: &AccountId, _: u64, _: &str, _: u64) -> Result<(), LedgerError> {
        unreachable!("nothing is credited")
    }

    async fn account(&self, account: &AccountId) -> Result<Option<Account>, LedgerError> {
        self.inner.account(account).await
    }

    async fn revoke(&self, revocation: &Revocation) -> Result<(), LedgerError> {
        self.before().await;
        self.inner.revoke(revocation).await?;
        self.after().await;
        Ok(())
    }

    async fn open_reservations(&self) -> Result<Vec<OpenReservation>, LedgerError> {
        self.inner.open_reservations().await
    }
}

/// Reads a count, decides, and then writes it. Nothing else of it is wrong.
#[derive(Debug, Default)]
pub struct Naive {
    revocations: Revocations,
    books: Mutex<Books>,
}

#[derive(Debug, Default)]
struct Books {
    limit: u64,
    used: u64,
    given_back: u64,
    open: HashMap<ReservationId, OpenReservation>,
    tombstones: HashSet<ReservationId>,
}

#[async_trait]
impl Ledger for Naive {
    fn instance(&self) -> Option<[u8; 16]> {
        None
    }

    fn revocations(&self) -> &Revocations {
        &self.revocations
    }

    async fn reserve(&self, ask: &Reserve) -> Result<Reserved, LedgerError> {
        let used = self.books.lock().unwrap().used;
        if used >= ask.limit {
            return Ok(Reserved::UsedUp);
        }
        yield_now().await;
        let mut books = self.books.lock().unwrap();
        if books.tombstones.contains(&ask.id) {
            return Ok(Reserved::Released);
        }
        (books.limit, books.used) = (ask.limit, used + 1);
        let open = OpenReservation { id: ask.id, units: 1, lease_until: ask.now + 600 };
        books.open.insert(ask.id, open);
        Ok(Reserved::Open { remaining: ask.limit - books.used })
    }

    async fn commit(&self, id: &ReservationId) -> Result<(), LedgerError> {
        self.books.lock().unwrap().open.remove(id);
        Ok(())
    }

    async fn release(&self, id: &ReservationId, _: u64) -> Result<(), LedgerError> {
        let mut books = self.books.lock().unwrap();
        if books.open.remove(id).is_none() {
            books.tombstones.insert(*id);
        } else if books.given_back < release_cap(books.limit) {
            books.given_back += 1;
            books.used = books.used.saturating_sub(1);
        }
        Ok(())
    }

    async fn credit(&self, _: &AccountId, _: u64, _: &str, _: u64) -> Result<(), LedgerError> {
        unreachable!("nothing is credited")
    }

    async fn account(&self, _: &AccountId) -> Result<Option<Account>, LedgerError> {
        let books = self.books.lock().unwrap();
        Ok(Some(Account { limit: books.limit, used: books.used, expires_at: u64::MAX }))
    }

    async fn revoke(&self, _: &Revocation) -> Result<(), LedgerError> {
        Ok(())
    }

    async fn open_reservations(&self) -> Result<Vec<OpenReservation>, LedgerError> {
        Ok(self.books.lock().unwrap().open.values().copied().collect())
    }
}

/// The memory ledger, which forgets a release that comes before its reserve.
#[derive(Debug, Default)]
pub struct Forgetful {
    memory: MemoryLedger,
    made: Mutex<HashSet<ReservationId>>,
}

#[async_trait]
impl Ledger for Forgetful {
    fn instance(&self) -> Option<[u8; 16]> {
        self.memory.instance()
    }

    fn revocations(&self) -> &Revocations {
        self.memory.revocations()
    }

    async fn reserve(&self, ask: &Reserve) -> Result<Reserved, LedgerError> {
        let reserved = self.memory.reserve(ask).await;
        self.made.lock().unwrap().insert(ask.id);
        reserved
    }

    async fn commit(&self, id: &ReservationId) -> Result<(), LedgerError> {
        self.memory.commit(id).await
    }

    async fn release(&self, id: &ReservationId, now: u64) -> Result<(), LedgerError> {
        let is_made = self.made.lock().unwrap().contains(id);
        if is_made {
            self.memory.release(id, now).await?;
        }
        Ok(())
    }

    async fn credit(&self, _: &AccountId, _: u64, _: &str, _: u64) -> Result<(), LedgerError> {
        unreachable!("nothing is credited")
    }

    async fn account(&self, account: &AccountId) -> Result<Option<Account>, LedgerError> {
        self.memory.account(account).await
    }

    async fn revoke(&self, revocation: &Revocation) -> Result<(), LedgerError> {
        self.memory.revoke(revocation).await
    }

    async fn open_reservations(&self) -> Result<Vec<OpenReservation>, LedgerError> {
        self.memory.open_reservations().await
    }
}
