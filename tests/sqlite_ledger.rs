//! `SqliteLedger`: the contract, and what a file adds to it.
#![allow(missing_docs)]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderValue, Request};
use l402::ledger::{AccountId, Ledger, ReservationId, Reserve, Reserved, Synchronous, release_cap};
use l402::{
    Access, DevBackend, ErrorKind, Gate, HOUR, Issuer, KeyRing, Network, Offer, PaymentHash, Price,
    Revocation, RootKey, SqliteLedger, conformance,
};
use tempfile::TempDir;

const NOW: u64 = 1_800_000_000;

fn account(n: u8) -> AccountId {
    PaymentHash::from_bytes([n; 32]).into()
}

/// Reservation `nonce` of one unit of account `n`, which was sold with `limit`.
fn ask(n: u8, nonce: u8, limit: u64) -> Reserve {
    let id = ReservationId::new(account(n), [nonce; 16]);
    Reserve { id, units: 1, limit, ceiling: u64::MAX, expires_at: NOW + 86_400, now: NOW }
}

fn all_passes() -> Revocation {
    Revocation::Service { name: "pass".into(), issued_before: u64::MAX }
}

/// A token of an issuer that has the ledger's revocations from it.
struct Pass(Gate, HeaderValue);

impl Pass {
    fn new(ledger: Arc<SqliteLedger>) -> Self {
        let issuer = Issuer::builder(KeyRing::new(RootKey::generate()), DevBackend::new());
        let issuer = issuer.with_network(Network::Regtest).with_ledger(ledger).build().unwrap();
        let gate = Gate::new(&issuer, "pass", Offer::new(Price::sat(1), Access::pass(HOUR))).unwrap();
        let credential = gate.test_credential();
        Self(gate, credential)
    }

    async fn opens(&self) -> bool {
        let request = Request::get("/").header("authorization", self.1.clone()).body(()).unwrap();
        self.0.admit(&mut request.into_parts().0).await.is_ok()
    }
}

struct Uses(TempDir);

impl Uses {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self) -> std::path::PathBuf {
        self.0.path().join("uses.db")
    }

    async fn open(&self) -> SqliteLedger {
        SqliteLedger::open(self.file()).await.unwrap()
    }

    /// The file as an operator's own tools see it.
    fn raw(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(self.file()).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_keeps_the_contract() {
    let uses = Uses::new();
    conformance::ledger::check(Arc::new(uses.open().await)).await;
    let normal = SqliteLedger::open_with(uses.0.path().join("normal.db"), Synchronous::Normal).await.unwrap();
    conformance::ledger::check(Arc::new(normal)).await;
}

#[tokio::test]
async fn what_was_used_stays_used_after_a_restart() {
    let uses = Uses::new();
    {
        let ledger = uses.open().await;
        ledger.reserve(&ask(1, 1, 2)).await.unwrap();
        ledger.commit(&ask(1, 1, 2).id).await.unwrap();
        ledger.reserve(&ask(1, 2, 2)).await.unwrap();
        ledger.credit(&account(2), 5, "paid", NOW + 100).await.unwrap();
        ledger.release(&ask(3, 1, 2).id, NOW).await.unwrap();
        ledger.revoke(&all_passes()).await.unwrap();
    }
    let ledger = uses.open().await;
    assert_eq!(ledger.instance(), None, "its tokens outlive the process");
    assert_eq!(ledger.reserve(&ask(1, 3, 2)).await.unwrap(), Reserved::UsedUp);
    let open = ledger.open_reservations().await.unwrap();
    assert_eq!(open.len(), 1, "the one that was not committed: {open:?}");
    assert_eq!((open[0].id, open[0].units, open[0].lease_until), (ask(1, 2, 2).id, 1, NOW + 600));
    ledger.credit(&account(2), 5, "paid", NOW + 100).await.unwrap();
    assert_eq!(ledger.account(&account(2)).await.unwrap().unwrap().limit, 5, "an event counts once");
    assert_eq!(ledger.reserve(&ask(3, 1, 2)).await.unwrap(), Reserved::Released);
    assert!(!Pass::new(Arc::new(ledger)).opens().await, "what was revoked stays revoked");
}

#[tokio::test]
async fn what_was_purged_stays_used_up_after_a_restart() {
    let uses = Uses::new();
    let later = Reserve { now: NOW + 200_000, expires_at: NOW + 300_000, ..ask(2, 1, 1) };
    {
        let ledger = uses.open().await;
        ledger.reserve(&ask(1, 1, 1)).await.unwrap();
        ledger.reserve(&later).await.unwrap();
        assert_eq!(ledger.account(&account(1)).await.unwrap(), None);
        assert_eq!(ledger.open_reservations().await.unwrap().len(), 1, "reservations go with their account");
    }
    let again = uses.open().await.reserve(&ask(1, 2, 1)).await.unwrap();
    assert_eq!(again, Reserved::Expired, "the clock of this process is a day behind");
}

#[tokio::test]
async fn a_purge_takes_a_bounded_number_of_the_oldest_rows() {
    let uses = Uses::new();
    let ledger = uses.open().await;
    for n in 0..100 {
        let expires_at = NOW + 1000 - u64::from(n);
        ledger.reserve(&Reserve { expires_at, ..ask(n, 1, 1) }).await.unwrap();
    }
    let later = |n| Reserve { now: NOW + 2000, expires_at: NOW + 9000, ..ask(n, 1, 1) };
    let rows =
        || uses.raw().query_row("SELECT count(*) FROM l402_account", [], |row| row.get::<_, i64>(0)).unwrap();
    ledger.reserve(&later(200)).await.unwrap();
    assert_eq!(rows(), 100 - 64 + 1);
    assert_eq!(ledger.account(&account(99)).await.unwrap(), None, "the first to expire");
    assert!(ledger.account(&account(0)).await.unwrap().is_some(), "the last to expire");
    ledger.reserve(&later(201)).await.unwrap();
    assert_eq!(rows(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_handles_on_one_file_share_one_count() {
    let uses = Uses::new();
    let ledgers = [Arc::new(uses.open().await), Arc::new(uses.open().await)];
    for limit in [1, 7, 100] {
        let n = u8::try_from(limit).unwrap();
        let mut tasks = tokio::task::JoinSet::new();
        for nonce in 0..150 {
            let ledger = ledgers[usize::from(nonce) % 2].clone();
            tasks.spawn(async move { ledger.reserve(&ask(n, nonce, limit)).await.unwrap() });
        }
        let answers = tasks.join_all().await;
        let open = answers.iter().filter(|answer| matches!(answer, Reserved::Open { .. })).count();
        assert_eq!(open as u64, limit);
        for ledger in &ledgers {
            assert_eq!(ledger.account(&account(n)).await.unwrap().unwrap().used, limit);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_may_open_a_new_file_at_once() {
    let uses = Uses::new();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let file = uses.file();
        tasks.spawn(async move { SqliteLedger::open(file).await.map(drop) });
    }
    for opened in tasks.join_all().await {
        opened.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_is_seen_by_another_handle() {
    let uses = Uses::new();
    let (one, other) = (uses.open().await, Pass::new(Arc::new(uses.open().await)));
    assert!(other.opens().await);
    one.revoke(&all_passes()).await.unwrap();
    assert!(!Pass::new(Arc::new(one)).opens().await, "at once, where it was revoked");
    let mut tick = tokio::time::interval(Duration::from_millis(20));
    let refreshed = async {
        while other.opens().await {
            tick.tick().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), refreshed).await.expect("it is read every 5 s");
}

#[tokio::test]
async fn a_file_that_cannot_be_opened_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    std::fs::create_dir(at("folder")).unwrap();
    std::fs::write(at("letter"), "dear reader, ".repeat(100)).unwrap();
    drop(SqliteLedger::open(at("later")).await.unwrap());
    let later = rusqlite::Connection::open(at("later")).unwrap();
    later.execute("UPDATE l402_meta SET value = 2 WHERE key = 'version'", []).unwrap();
    for (file, why) in [
        (at("no/such/folder"), "No such file or directory"),
        (at("folder"), "unable to open database file"),
        (at("letter"), "file is not a database"),
        (at("later"), "a later release of l402 wrote it"),
        (Path::new("").to_owned(), "empty path"),
    ] {
        let error = SqliteLedger::open(&file).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Ledger);
        let text = error.to_string();
        assert!(text.contains(&format!("ledger {}", file.display())) && text.contains(why), "{text}");
    }
}

#[tokio::test]
async fn a_name_of_a_database_in_memory_is_a_file_like_others() {
    let dir = tempfile::tempdir().unwrap();
    let special = dir.path().join(":memory:");
    drop(SqliteLedger::open(&special).await.unwrap());
    assert!(special.is_file());
}

#[cfg(unix)]
#[tokio::test]
async fn the_file_is_private_to_its_user() {
    use std::os::unix::fs::PermissionsExt;
    let uses = Uses::new();
    let ledger = uses.open().await;
    ledger.reserve(&ask(1, 1, 1)).await.unwrap();
    for entry in std::fs::read_dir(uses.0.path()).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", entry.path());
    }
}

#[tokio::test]
async fn a_lock_that_is_not_given_up_is_an_error_and_not_an_admission() {
    let uses = Uses::new();
    let ledger = uses.open().await;
    let other = uses.raw();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let error = ledger.reserve(&ask(1, 1, 1)).await.unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("database is locked"), "{cause}");
    assert_eq!(ledger.account(&account(1)).await.unwrap(), None, "reading needs no lock");
    other.execute_batch("ROLLBACK").unwrap();
    assert_eq!(ledger.reserve(&ask(1, 1, 1)).await.unwrap(), Reserved::Open { remaining: 0 });
}

#[tokio::test]
async fn a_store_that_cannot_be_read_refuses_and_recovers() {
    let uses = Uses::new();
    let ledger = uses.open().await;
    uses.raw().execute_batch("ALTER TABLE l402_open RENAME TO gone").unwrap();
    for error in [
        ledger.reserve(&ask(1, 1, 1)).await.map(drop).unwrap_err(),
        ledger.commit(&ask(1, 1, 1).id).await.unwrap_err(),
        ledger.release(&ask(1, 1, 1).id, NOW).await.unwrap_err(),
        ledger.open_reservations().await.map(drop).unwrap_err(),
    ] {
        assert_eq!(error.to_string(), "ledger is unavailable");
    }
    uses.raw().execute_batch("ALTER TABLE gone RENAME TO l402_open").unwrap();
    assert_eq!(ledger.reserve(&ask(1, 1, 1)).await.unwrap(), Reserved::Open { remaining: 0 });
}

#[tokio::test]
async fn what_changes_nothing_writes_nothing() {
    let uses = Uses::new();
    let ledger = uses.open().await;
    ledger.reserve(&ask(1, 1, 1)).await.unwrap();
    let expired = Reserve { now: NOW + 100_000, ..ask(2, 1, 1) };
    ledger.release(&ask(3, 1, 1).id, NOW).await.unwrap();
    let changes = uses.raw();
    let version = || changes.query_row("PRAGMA data_version", [], |row| row.get::<_, i64>(0)).unwrap();
    let before = version();
    for (ask, answer) in [
        (ask(1, 1, 1), Reserved::Open { remaining: 0 }),
        (ask(1, 2, 1), Reserved::UsedUp),
        (ask(3, 1, 1), Reserved::Released),
        (expired, Reserved::Expired),
    ] {
        assert_eq!(ledger.reserve(&ask).await.unwrap(), answer);
    }
    ledger.commit(&ask(1, 9, 1).id).await.unwrap();
    ledger.release(&ask(1, 1, 1).id, NOW + 600).await.unwrap();
    assert_eq!(version(), before);
    ledger.commit(&ask(1, 1, 1).id).await.unwrap();
    assert_ne!(version(), before, "a change is seen");
}

#[tokio::test]
async fn an_operation_that_was_begun_is_done_though_nobody_waits() {
    let uses = Uses::new();
    let ledger = uses.open().await;
    let other = uses.raw();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let asked = ask(1, 1, 5);
    let mut reserve = ledger.reserve(&asked);
    let waker = std::task::Waker::noop();
    assert!(reserve.as_mut().poll(&mut std::task::Context::from_waker(waker)).is_pending());
    drop(reserve);
    other.execute_batch("COMMIT").unwrap();
    // Operations run in their order.
    assert_eq!(ledger.account(&account(1)).await.unwrap().unwrap().used, 1);
}

#[tokio::test]
async fn a_full_queue_is_an_error_at_once() {
    let uses = Uses::new();
    let ledger = uses.open().await;
    let other = uses.raw();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let waker = std::task::Waker::noop();
    let asks: Vec<_> = (0..6000).map(|_| ask(1, 1, 5)).collect();
    let full = asks.iter().any(|ask| {
        match ledger.reserve(ask).as_mut().poll(&mut std::task::Context::from_waker(waker)) {
            std::task::Poll::Ready(Err(error)) => {
                std::error::Error::source(&error).unwrap().to_string().contains("full")
            }
            _ => false,
        }
    });
    assert!(full);
}

#[tokio::test]
async fn tombstones_go_after_their_lease() {
    let uses = Uses::new();
    let ledger = uses.open().await;
    ledger.release(&ask(1, 1, 1).id, NOW).await.unwrap();
    ledger.release(&ask(2, 1, 1).id, NOW + 600).await.unwrap();
    let left =
        uses.raw().query_row("SELECT count(*) FROM l402_tombstone", [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(left, 1);
}

#[tokio::test]
async fn more_than_a_number_of_sqlite_is_less_for_the_buyer() {
    let uses = Uses::new();
    let ledger = uses.open().await;
    let huge = Reserve { units: u64::MAX, expires_at: u64::MAX, ..ask(1, 1, u64::MAX) };
    assert_eq!(ledger.reserve(&huge).await.unwrap(), Reserved::UsedUp);
    let some = Reserve { units: 1 << 61, ..huge };
    let Reserved::Open { remaining } = ledger.reserve(&some).await.unwrap() else {
        panic!("there is as much")
    };
    assert!(remaining < u64::MAX / 4);
    for event in ["a", "b", "c"] {
        ledger.credit(&account(1), u64::MAX, event, u64::MAX).await.unwrap();
    }
    assert_eq!(ledger.account(&account(1)).await.unwrap().unwrap().used, 1 << 61);
    assert_eq!(release_cap(u64::MAX), 100);
    ledger.release(&some.id, NOW).await.unwrap();
    assert_eq!(ledger.account(&account(1)).await.unwrap().unwrap().used, 0);
}
