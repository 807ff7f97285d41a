//! The ledgers that outlive a process, opened by URL, for tests that run this
//! same binary again as processes of their own.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;

use l402::ledger::{AccountId, Ledger, ReservationId, Reserve};
use l402::{Entropy, PaymentHash, SqliteLedger};

/// Set in the processes that a test starts: what they are to do.
const TASK: &str = "L402_TEST_TASK";
/// URLs of ledgers to test in place of SQLite, separated by commas.
const LEDGERS: &str = "L402_TEST_LEDGERS";

pub(crate) const NOW: u64 = 1_800_000_000;

pub(crate) async fn open(url: &str) -> Arc<dyn Ledger> {
    match url.split_once(':') {
        Some(("sqlite", file)) => Arc::new(SqliteLedger::open(file).await.expect("the file opens")),
        #[cfg(feature = "postgres")]
        Some(("postgres", _)) => {
            Arc::new(l402::PostgresLedger::connect(url).await.expect("the server answers"))
        }
        #[cfg(feature = "redis")]
        Some(("redis", _)) => Arc::new(l402::RedisLedger::connect(url).await.expect("the server answers")),
        _ => panic!("no ledger has the URL {url}"),
    }
}

/// Waits until a server has run what the processes that were killed had sent.
pub(crate) async fn settle(url: &str) {
    match url.split_once(':') {
        #[cfg(feature = "postgres")]
        Some(("postgres", _)) => {
            let (client, connection) =
                tokio_postgres::connect(url, tokio_postgres::NoTls).await.expect("the server answers");
            tokio::spawn(connection);
            let others = "SELECT FROM pg_stat_activity WHERE application_name = 'l402'";
            while !client.query(others, &[]).await.expect("an answer").is_empty() {}
        }
        #[cfg(feature = "redis")]
        Some(("redis", _)) => {
            let client = redis::Client::open(url).expect("a URL");
            let mut connection = client.get_multiplexed_async_connection().await.expect("the server answers");
            let list = redis::cmd("CLIENT").arg("LIST").to_owned();
            while list.query_async::<String>(&mut connection).await.expect("an answer").lines().count() > 1 {}
        }
        // A lock of the file system ends with its process.
        _ => {}
    }
}

/// The ledgers to test: those that [`LEDGERS`] names, else a new file.
pub(crate) fn urls(dir: &Path) -> Vec<String> {
    match std::env::var(LEDGERS) {
        Ok(urls) => urls.split(',').map(str::to_owned).collect(),
        Err(_) => vec![format!("sqlite:{}", dir.join("uses.db").display())],
    }
}

pub(crate) fn ask(account: AccountId, nonce: [u8; 16], limit: u64) -> Reserve {
    let id = ReservationId::new(account, nonce);
    Reserve { id, units: 1, limit, ceiling: u64::MAX, expires_at: NOW + 86_400, now: NOW }
}

pub(crate) fn account(bytes: [u8; 32]) -> AccountId {
    PaymentHash::from_bytes(bytes).into()
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// The words of the task, in a process that a test started.
pub(crate) fn task() -> Option<Vec<String>> {
    Some(std::env::var(TASK).ok()?.split(' ').map(str::to_owned).collect())
}

/// A process of this same binary. It is killed when this is dropped.
pub(crate) struct Process {
    child: Child,
    pub(crate) input: ChildStdin,
    pub(crate) output: BufReader<ChildStdout>,
}

impl Process {
    pub(crate) fn start(task: &[&dyn std::fmt::Display]) -> Self {
        let task = task.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.env(TASK, task).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Self { child, input, output: BufReader::new(output) }
    }

    /// The next line it says; `None` when it has ended.
    pub(crate) fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.strip_suffix('\n').map(str::to_owned)
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Says a line to the process that started this one, at once.
pub(crate) fn say(line: std::fmt::Arguments<'_>) {
    let mut out = std::io::stdout().lock();
    // One write of less than a page: it arrives whole or not at all.
    out.write_all(format!("{line}\n").as_bytes()).and_then(|()| out.flush()).unwrap();
}

/// Waits until the process that started this one says something, or is gone.
pub(crate) fn listen() {
    std::io::stdin().lock().read_line(&mut String::new()).unwrap();
}

/// `SplitMix64`: the same numbers for the same seed.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    pub(crate) fn bytes<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.next().to_le_bytes()[7])
    }
}

/// A seed from the environment, to repeat a run, or a new one.
pub(crate) fn seed() -> u64 {
    let new = |_| {
        let mut bytes = [0; 8];
        l402::SystemEntropy.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    };
    std::env::var("L402_TEST_SEED").map_or_else(new, |seed| seed.parse().expect("L402_TEST_SEED is a number"))
}
