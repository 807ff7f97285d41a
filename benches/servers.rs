//! Metering in a store: debits (a reserve and its commit) per second, beside one
//! bare statement of the same engine over as many connections; and what a
//! counted request takes through the gate, beside a pass. Run it as
//! `tests/servers/run cargo bench --features postgres,redis --bench servers`.

#![allow(missing_docs)]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use l402::ledger::{AccountId, ReservationId, Reserve, Reserved};
use l402::{
    Access, DAY, DevBackend, Entropy, Gate, Issuer, KeyRing, Ledger, MemoryLedger, Network, Offer,
    PaymentHash, PostgresLedger, Price, RedisLedger, RootKey, SqliteLedger, SystemEntropy,
};
use tokio::task::JoinSet;

/// Accounts that are debited in turn.
const ACCOUNTS: u64 = 1_000;
/// How long each figure is measured.
const TIME: Duration = Duration::from_secs(3);
const CONNECTIONS: usize = 8;

#[tokio::main]
async fn main() {
    if !std::env::args().any(|arg| arg == "--bench") {
        return; // `cargo test --benches` has no servers
    }
    let url = |name: &str| std::env::var(name).expect("set by tests/servers/run");
    let (postgres, redis) = (url("L402_TEST_POSTGRES"), url("L402_TEST_REDIS"));
    let accounts: Arc<Vec<AccountId>> =
        Arc::new((0..ACCOUNTS).map(|_| PaymentHash::from_bytes(random()).into()).collect());

    let dir = tempfile::tempdir().expect("a directory");
    for at_once in [1, 32] {
        let file = dir.path().join(format!("{at_once}.db"));
        let ledger: Arc<dyn Ledger> = Arc::new(SqliteLedger::open(&file).await.expect("a new file"));
        let debits = measure(at_once, |n| debit(ledger.clone(), accounts[index(n)])).await;
        report("SQLite", at_once, debits, bare_sqlite(&dir.path().join("bare.db")));

        let ledger: Arc<dyn Ledger> =
            Arc::new(PostgresLedger::connect(&postgres).await.expect("the server answers"));
        let debits = measure(at_once, |n| debit(ledger.clone(), accounts[index(n)])).await;
        let clients = Arc::new(bare_postgres(&postgres).await);
        let bare = measure(at_once, |n| {
            let (clients, id) = (clients.clone(), i64::try_from(n % ACCOUNTS).expect("few"));
            async move {
                let (client, update) = &clients[usize::try_from(n).expect("few") % CONNECTIONS];
                client.execute(update, &[&id]).await.expect("the server answers");
            }
        })
        .await;
        report("PostgreSQL", at_once, debits, bare);

        let ledger: Arc<dyn Ledger> =
            Arc::new(RedisLedger::connect(&redis).await.expect("the server answers"));
        let debits = measure(at_once, |n| debit(ledger.clone(), accounts[index(n)])).await;
        let client = redis::Client::open(redis.as_str()).expect("a URL");
        let connection = client.get_multiplexed_async_connection().await.expect("the server answers");
        let bare = measure(at_once, |n| {
            let mut connection = connection.clone();
            async move {
                let mut add = redis::cmd("HINCRBY");
                let _: i64 = add
                    .arg(format!("bare:{}", n % ACCOUNTS))
                    .arg("n")
                    .arg(1)
                    .query_async(&mut connection)
                    .await
                    .expect("the server answers");
            }
        })
        .await;
        report("Redis", at_once, debits, bare);
    }

    let pass = latency(MemoryLedger::new(), Access::pass(DAY)).await;
    println!("a pass through Gate::admit and settle: {pass:.1} us");
    let counted = Access::uses(u64::from(u32::MAX));
    let sqlite = SqliteLedger::open(dir.path().join("latency.db")).await.expect("a new file");
    for (name, added) in [
        ("memory", latency(MemoryLedger::new(), counted).await - pass),
        ("SQLite", latency(sqlite, counted).await - pass),
        (
            "PostgreSQL",
            latency(PostgresLedger::connect(&postgres).await.expect("it answers"), counted).await - pass,
        ),
        ("Redis", latency(RedisLedger::connect(&redis).await.expect("it answers"), counted).await - pass),
    ] {
        println!("a use counted in {name}: {added:.1} us more, {:.1} x a pass", (added + pass) / pass);
    }
}

/// The median time of a request from head to settled response, in microseconds.
async fn latency(ledger: impl Ledger + 'static, access: Access) -> f64 {
    let issuer = Issuer::builder(KeyRing::new(RootKey::generate()), DevBackend::new())
        .with_network(Network::Regtest)
        .with_ledger(ledger)
        .build()
        .expect("regtest");
    let gate = Gate::new(&issuer, "bench", Offer::new(Price::sat(1), access)).expect("one offer");
    let credential = gate.test_credential();
    let mut times = Vec::new();
    for _ in 0..501 {
        let request =
            http::Request::get("/").header("authorization", &credential).body(()).expect("a request");
        let mut head = request.into_parts().0;
        let begin = Instant::now();
        let admission = gate.admit(&mut head).await.expect("paid");
        drop(admission.settle(http::Response::new(())));
        times.push(begin.elapsed().as_secs_f64() * 1e6);
    }
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// Updates of one row each, every one of them durable, in a second.
fn bare_sqlite(file: &Path) -> f64 {
    let db = rusqlite::Connection::open(file).expect("a file");
    db.pragma_update(None, "journal_mode", "WAL").expect("WAL");
    db.pragma_update(None, "synchronous", "FULL").expect("FULL");
    db.execute_batch("CREATE TABLE IF NOT EXISTS bare (id INTEGER PRIMARY KEY, n INTEGER); INSERT OR IGNORE INTO bare VALUES (1, 0)")
        .expect("a table");
    let (begin, mut done) = (Instant::now(), 0_u32);
    while begin.elapsed() < TIME {
        db.execute("UPDATE bare SET n = n + 1 WHERE id = 1", []).expect("an update");
        done += 1;
    }
    f64::from(done) / begin.elapsed().as_secs_f64()
}

fn report(name: &str, at_once: usize, debits: f64, bare: f64) {
    println!(
        "{name}, {at_once} at once: {debits:.0} debits/s, {bare:.0} bare statements/s: {:.2}",
        debits / bare
    );
}

fn index(n: u64) -> usize {
    usize::try_from(n % ACCOUNTS).expect("few")
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemEntropy.fill(&mut bytes);
    bytes
}

async fn debit(ledger: Arc<dyn Ledger>, account: AccountId) {
    let id = ReservationId::new(account, random());
    let limit = u64::MAX;
    let (expires_at, now) = (2_000_000_000, 1_900_000_000);
    let ask = Reserve { id, units: 1, limit, ceiling: limit, expires_at, now };
    let reserved = ledger.reserve(&ask).await.expect("the server answers");
    assert!(matches!(reserved, Reserved::Open { .. }), "{reserved:?}");
    ledger.commit(&id).await.expect("the server answers");
}

/// How often in a second something is done, by so many at once.
async fn measure<F>(at_once: usize, operation: impl Fn(u64) -> F) -> f64
where
    F: Future<Output = ()> + Send + 'static,
{
    let (mut running, mut started, mut done) = (JoinSet::new(), 0, 0_u32);
    let begin = Instant::now();
    while begin.elapsed() < TIME {
        while running.len() < at_once {
            running.spawn(operation(started));
            started += 1;
        }
        running.join_next().await.expect("some run").expect("no panic");
        done += 1;
    }
    let rate = f64::from(done) / begin.elapsed().as_secs_f64();
    while let Some(last) = running.join_next().await {
        last.expect("no panic");
    }
    rate
}

async fn bare_postgres(url: &str) -> Vec<(tokio_postgres::Client, tokio_postgres::Statement)> {
    let mut clients = Vec::new();
    for _ in 0..CONNECTIONS {
        let (client, connection) =
            tokio_postgres::connect(url, tokio_postgres::NoTls).await.expect("the server answers");
        tokio::spawn(connection);
        if clients.is_empty() {
            let table = format!(
                "CREATE TABLE IF NOT EXISTS bare (id bigint PRIMARY KEY, n bigint NOT NULL);
                INSERT INTO bare SELECT n, 0 FROM generate_series(0, {}) n ON CONFLICT DO NOTHING",
                ACCOUNTS - 1
            );
            client.batch_execute(&table).await.expect("the server answers");
        }
        let update = client.prepare("UPDATE bare SET n = n + 1 WHERE id = $1").await;
        clients.push((client, update.expect("the server answers")));
    }
    clients
}
