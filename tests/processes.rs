//! Four processes ask each ledger for a million uses in all: as many are granted
//! as were sold.
//!
//! `L402_TEST_LEDGERS` names other ledgers than SQLite.
#![allow(missing_docs)]

#[path = "support/stores.rs"]
#[allow(dead_code)] // what tests/crash.rs uses alone
mod stores;

use std::io::Write;
use std::rc::Rc;
use std::time::Instant;

use l402::ledger::Reserved;
use stores::{Process, Random, account, ask, say};

const PROCESSES: u64 = 4;
/// Attempts on each of three accounts: a million on each ledger.
const ATTEMPTS: u64 = 333_400;
/// Requests that a process has under way at once.
const AT_ONCE: u64 = 50;

fn main() {
    if let Some(task) = stores::task() {
        return attempt(&task);
    }
    let dir = tempfile::tempdir().unwrap();
    let mut random = Random(stores::seed());
    for url in stores::urls(dir.path()) {
        for sold in [1, 7, 1000] {
            grants_equal_what_was_sold(&url, sold, &mut random);
        }
    }
}

fn attempt(task: &[String]) {
    let [url, token, seed, sold] = task else { panic!("{task:?}") };
    let account = account(hex::decode(token).unwrap().try_into().unwrap());
    let (seed, sold): (u64, u64) = (seed.parse().unwrap(), sold.parse().unwrap());
    let runtime = stores::runtime();
    let ledger = runtime.block_on(stores::open(url));
    say(format_args!("ready"));
    stores::listen();
    let tasks = tokio::task::LocalSet::new();
    let granted = tasks.block_on(&runtime, async {
        let ledger = Rc::new(ledger);
        let attempts = |n| {
            let ledger = ledger.clone();
            async move {
                let (mut random, mut granted) = (Random(seed.wrapping_add(n)), 0);
                for _ in 0..ATTEMPTS / PROCESSES / AT_ONCE {
                    let ask = ask(account, random.bytes(), sold);
                    match ledger.reserve(&ask).await.expect("reserve answers") {
                        Reserved::UsedUp => continue,
                        Reserved::Open { .. } => granted += 1,
                        answer => panic!("{answer:?}"),
                    }
                    ledger.commit(&ask.id).await.expect("commit answers");
                }
                granted
            }
        };
        let tasks: Vec<_> = (0..AT_ONCE).map(|n| tokio::task::spawn_local(attempts(n))).collect();
        let mut granted = 0;
        for task in tasks {
            granted += task.await.unwrap();
        }
        granted
    });
    say(format_args!("{granted}"));
}

fn grants_equal_what_was_sold(url: &str, sold: u64, random: &mut Random) {
    let token: [u8; 32] = random.bytes();
    let start = |_| Process::start(&[&url, &hex::encode(token), &random.next(), &sold]);
    let mut processes: Vec<_> = (0..PROCESSES).map(start).collect();
    for process in &mut processes {
        assert_eq!(process.line().as_deref(), Some("ready"));
    }
    let begun = Instant::now();
    for process in &mut processes {
        process.input.write_all(b"go\n").unwrap();
    }
    let granted: Vec<u64> =
        processes.iter_mut().map(|process| process.line().expect("a count").parse().unwrap()).collect();
    println!(
        "{url}: {ATTEMPTS} attempts by {PROCESSES} processes for {sold} uses: granted {granted:?} in {:.1} s",
        begun.elapsed().as_secs_f32()
    );
    assert_eq!(granted.iter().sum::<u64>(), sold, "grants");
    stores::runtime().block_on(async {
        let (account, ledger) = (account(token), stores::open(url).await);
        assert_eq!(ledger.account(&account).await.unwrap().expect("a used account").used, sold, "the count");
        let open = ledger.open_reservations().await.unwrap();
        assert!(open.iter().all(|open| open.id.account() != account), "all are committed");
    });
}
