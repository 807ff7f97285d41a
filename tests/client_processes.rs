//! Processes that share a token store, or die over one. Four that buy at once
//! spend no more than their budget; and of those that are killed (SIGKILL), all
//! that was begun is there afterwards, with its sum.
//!
//! `L402_TEST_SEED` repeats a run.
#![allow(missing_docs)]

#[path = "support/stores.rs"]
#[allow(dead_code)] // what the tests of ledgers use alone
mod stores;

use std::collections::HashMap;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use l402::client::{Begun, Budget, FileStore, Purchase, PurchaseState, SqliteStore, TokenStore};
use l402::{PaymentHash, Preimage};
use stores::{NOW, Process, Random, listen, runtime, say};

const SAT: u64 = 1_000;
const ORIGIN: &str = "https://api.example";
const PROCESSES: u64 = 4;
const ATTEMPTS: usize = 300;
/// Payments that a process has under way at once.
const AT_ONCE: usize = 10;
/// A budget for 100 payments of 10 sat, with a fee of 1 sat at most.
const BUDGET_SAT: u64 = 1_100;
const KILLS: usize = 50;

fn main() {
    if let Some(task) = stores::task() {
        return match task.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["buy", url, seed] => runtime().block_on(buy(url, Random(seed.parse().unwrap()))),
            ["die", url, seed] => runtime().block_on(buy_until_killed(url, Random(seed.parse().unwrap()))),
            _ => panic!("{task:?}"),
        };
    }
    let seed = stores::seed();
    println!("L402_TEST_SEED={seed}");
    let dir = tempfile::tempdir().unwrap();
    four_processes_spend_one_budget(dir.path(), &mut Random(seed));
    for kind in ["sqlite", "file"] {
        what_was_begun_survives_a_kill(kind, dir.path(), &mut Random(seed));
    }
}

async fn open(url: &str) -> Arc<dyn TokenStore> {
    match url.split_once(':') {
        Some(("sqlite", file)) => Arc::new(SqliteStore::open(file).await.expect("the file opens")),
        Some(("file", file)) => Arc::new(FileStore::open(file).await.expect("the file opens")),
        _ => panic!("no token store has the URL {url}"),
    }
}

fn purchase(random: &mut Random) -> Purchase {
    let mut purchase = Purchase::new(PaymentHash::from_bytes(random.bytes()), ORIGIN, 10 * SAT, NOW);
    purchase.max_fee_msat = SAT;
    purchase.token = "token".repeat(40);
    purchase
}

fn budget() -> Budget {
    Budget::default().with_origin_sat(BUDGET_SAT).with_hour_sat(BUDGET_SAT).with_total_sat(BUDGET_SAT)
}

/// A process that buys: says what its payments cost in the end, in msat.
async fn buy(url: &str, mut random: Random) {
    let store = open(url).await;
    say(format_args!("ready"));
    listen();
    let mut cost_msat = 0;
    for _ in 0..ATTEMPTS / AT_ONCE {
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..AT_ONCE {
            let (store, purchase, end) = (store.clone(), purchase(&mut random), random.below(4));
            tasks.spawn(async move {
                let hash = purchase.payment_hash;
                match store.begin(&purchase, &budget(), NOW).await.expect("begin answers") {
                    Begun::Started => {}
                    Begun::OverBudget(_) => return 0,
                    Begun::Exists => panic!("a new payment hash is known"),
                }
                let preimage = Some(Preimage::from_bytes([7; 32]));
                match end {
                    0 => return purchase.cost_msat(),
                    1 => {
                        store.fail(hash).await.expect("fail answers");
                        return 0;
                    }
                    2 => store.settle(hash, preimage, SAT / 2, NOW).await.expect("settle answers"),
                    _ => store.settle(hash, None, SAT / 2, NOW).await.expect("settle answers"),
                }
                purchase.amount_msat + SAT / 2
            });
        }
        cost_msat += tasks.join_all().await.iter().sum::<u64>();
    }
    say(format_args!("{cost_msat}"));
}

fn four_processes_spend_one_budget(dir: &Path, random: &mut Random) {
    let url = format!("sqlite:{}", dir.join("shared.db").display());
    let store = runtime().block_on(open(&url));
    let start = |_| Process::start(&[&"buy", &url, &random.next()]);
    let mut processes: Vec<_> = (0..PROCESSES).map(start).collect();
    for process in &mut processes {
        assert_eq!(process.line().as_deref(), Some("ready"));
    }
    let begun = Instant::now();
    for process in &mut processes {
        process.input.write_all(b"go\n").unwrap();
    }
    let costs = std::thread::spawn(move || {
        processes
            .iter_mut()
            .map(|process| process.line().expect("a sum").parse().unwrap())
            .collect::<Vec<u64>>()
    });
    let (spent, looks) = runtime().block_on(async {
        let mut looks = 0;
        loop {
            let is_last = costs.is_finished();
            let spent = store.spent(ORIGIN, NOW).await.unwrap();
            assert!(
                spent.total_msat <= BUDGET_SAT * SAT,
                "spent {} msat of {BUDGET_SAT} sat",
                spent.total_msat
            );
            looks += 1;
            if is_last {
                return (spent, looks);
            }
        }
    });
    let costs = costs.join().unwrap();
    println!(
        "{url}: {PROCESSES} processes, {ATTEMPTS} payments each, a budget of {BUDGET_SAT} sat: {costs:?} msat, \
         looked at {looks} times, in {:.1} s",
        begun.elapsed().as_secs_f32()
    );
    assert_eq!(spent.total_msat, costs.iter().sum::<u64>(), "the store counts what the processes spent");
    assert_eq!(
        [spent.origin_msat, spent.hour_msat, spent.day_msat],
        [spent.total_msat; 3],
        "it is all of one origin and hour"
    );
    assert!(spent.total_msat + 11 * SAT > BUDGET_SAT * SAT, "the budget is used up");
}

/// A process that is killed: says what it is about to do, and what is done.
async fn buy_until_killed(url: &str, mut random: Random) {
    let store = open(url).await;
    let wide = Budget::default().with_origin_sat(1 << 40).with_hour_sat(1 << 40).with_day_sat(1 << 40);
    let wide = wide.with_total_sat(1 << 40);
    loop {
        let purchase = purchase(&mut random);
        let hash = purchase.payment_hash;
        say(format_args!("begins {hash}"));
        assert_eq!(store.begin(&purchase, &wide, NOW).await.expect("begin answers"), Begun::Started);
        say(format_args!("pending {hash}"));
        match random.below(4) {
            0 => {}
            1 => {
                say(format_args!("fails {hash}"));
                store.fail(hash).await.expect("fail answers");
                say(format_args!("failed {hash}"));
            }
            end => {
                say(format_args!("settles {hash}"));
                let preimage = Some(Preimage::from_bytes([7; 32]));
                store.settle(hash, preimage, SAT / 2, NOW).await.expect("settle answers");
                say(format_args!("held {hash}"));
                if end == 3 {
                    say(format_args!("discards {hash}"));
                    store.discard(hash).await.expect("discard answers");
                    say(format_args!("gone {hash}"));
                }
            }
        }
    }
}

/// The states that a purchase may be in when this was the last that was said.
fn may_be(said: &str) -> &'static [&'static str] {
    match said {
        "begins" => &["failed", "pending"],
        "pending" => &["pending"],
        "fails" => &["pending", "failed"],
        "failed" => &["failed"],
        "settles" => &["pending", "held"],
        "held" => &["held"],
        "discards" => &["held", "gone"],
        "gone" => &["gone"],
        _ => panic!("{said}"),
    }
}

fn what_was_begun_survives_a_kill(kind: &str, dir: &Path, random: &mut Random) {
    let url = format!("{kind}:{}", dir.join("killed").with_extension(kind).display());
    let (begun, runtime) = (Instant::now(), runtime());
    let (mut said, mut in_between) = (HashMap::new(), 0);
    for kill in 1..=KILLS {
        let mut process = Process::start(&[&"die", &url, &random.next()]);
        let (lines, pause) = (random.below(16), Duration::from_micros(random.below(5_000)));
        let mut last = String::new();
        for line in 0.. {
            if line == lines {
                let at = Instant::now() + pause;
                while Instant::now() < at {
                    std::hint::spin_loop();
                }
                process.kill();
            }
            let Some(line) = process.line() else { break };
            let (what, hash) = line.split_once(' ').expect("a word and a hash");
            what.clone_into(&mut last);
            said.insert(hash.parse::<PaymentHash>().unwrap(), what.to_owned());
        }
        drop(process);
        in_between += usize::from(last.ends_with('s'));
        let (all, spent) = runtime.block_on(async {
            let store = open(&url).await;
            (store.all().await.unwrap(), store.spent(ORIGIN, NOW).await.unwrap())
        });
        for (hash, said) in &mut said {
            let kept = all.iter().find(|purchase| purchase.payment_hash == *hash);
            let state = kept.map_or("failed", |kept| match kept.state {
                PurchaseState::Pending => "pending",
                PurchaseState::Held { .. } => "held",
                PurchaseState::Gone { .. } => "gone",
                _ => panic!("{kept:?}"),
            });
            assert!(may_be(said).contains(&state), "kill {kill}: {hash} is {state}, and {said:?} was said");
            state.clone_into(said);
        }
        assert!(
            all.iter().all(|purchase| said.contains_key(&purchase.payment_hash)),
            "nothing else is there"
        );
        let cost_msat: u64 = all.iter().map(Purchase::cost_msat).sum();
        assert_eq!([spent.origin_msat, spent.total_msat], [cost_msat; 2], "kill {kill}: the sums hold");
    }
    println!(
        "{url}: {KILLS} kills, {in_between} within an operation, {} purchases, in {:.1} s",
        said.len(),
        begun.elapsed().as_secs_f32()
    );
}
