//! The memory ledger, and the guard that a gate puts around each reservation,
//! under schedules that shuttle chooses.

#![cfg_attr(not(shuttle), allow(unused))]

#[cfg(not(shuttle))]
compile_error!("run it with `--cfg shuttle`: see README.md");

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use http::{Request, Response};
use l402::ledger::{Account, AccountId, ReservationId, Reserve, Reserved, release_cap};
use l402::{Gate, Issuer, Ledger, MemoryLedger, Revocation};
use shuttle::future::{block_on, spawn};
use shuttle::rand::{Rng, thread_rng};
use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::{Config, MaxSteps, Runner};
use support::{Forgetful, NOW, Naive, Watched, chance, pause, shop};

/// Runs a scenario under so many schedules, and says how many they were.
fn explore(name: &str, schedules: impl Scheduler + 'static, scenario: fn()) {
    let mut config = Config::new();
    config.stack_size = 256 * 1024;
    config.max_steps = MaxSteps::FailAfter(50_000);
    config.silence_warnings = true;
    println!("{name}: {} schedules", Runner::new(schedules, config).run(scenario));
}

fn random(schedules: usize) -> RandomScheduler {
    RandomScheduler::new(schedules)
}

/// With few preemptions, at places that are hard to come by.
fn few_preemptions(schedules: usize) -> PctScheduler {
    PctScheduler::new(4, schedules)
}

/// How the requests of one schedule went, as their senders saw it.
#[derive(Default)]
struct Counts {
    admitted: AtomicUsize,
    released: AtomicUsize,
    revoked: AtomicBool,
}

/// A request for a paid resource, ended in any of the ways there are.
async fn request(gate: Gate, credential: http::HeaderValue, counts: Arc<Counts>) {
    let request = Request::get("/").header("authorization", credential).body(()).unwrap();
    let was_revoked = counts.revoked.load(Ordering::Relaxed);
    let Ok(admission) = gate.admit(&mut request.into_parts().0).await else { return };
    assert!(!was_revoked, "admitted after the revocation");
    counts.admitted.fetch_add(1, Ordering::Relaxed);
    pause().await; // dropped in here, the use stays spent
    match thread_rng().gen_range(0..4) {
        0 => drop(admission),
        1 => drop(admission.settle(Response::new(()))),
        2 => {
            counts.released.fetch_add(1, Ordering::Relaxed);
            let mut failed = Response::new(());
            *failed.status_mut() = http::StatusCode::BAD_GATEWAY;
            drop(admission.settle(failed));
        }
        _ => {
            counts.released.fetch_add(1, Ordering::Relaxed);
            admission.release();
        }
    }
}

async fn revoke(issuer: Issuer, counts: Arc<Counts>) {
    pause().await;
    // In force even where the ledger took too long to store it.
    let revocation = Revocation::Service { name: "svc".into(), issued_before: NOW + 1 };
    issuer.revoke(revocation).await.ok();
    counts.revoked.store(true, Ordering::Relaxed);
}

/// Four requests on fewer uses. Some clients leave, some operations take
/// longer than anybody waits, and the token may be revoked meanwhile.
fn requests(ledger: impl Ledger + 'static) {
    let sold = thread_rng().gen_range(1..=3);
    let ledger = Watched::over(ledger);
    let (issuer, gate, credential) = shop(ledger.clone(), sold);
    let counts = Arc::new(Counts::default());
    block_on(async {
        let mut tasks = Vec::new();
        for _ in 0..4 {
            let task = spawn(request(gate.clone(), credential.clone(), counts.clone()));
            if chance(0.25) {
                let leaves = task.abort_handle();
                spawn(async move {
                    pause().await;
                    pause().await;
                    leaves.abort();
                });
            }
            tasks.push(task);
        }
        if chance(0.125) {
            tasks.push(spawn(revoke(issuer, counts.clone())));
        }
        for task in tasks {
            task.await.ok(); // an error where its client left
        }
        ledger.settled().await;
        check(&ledger, sold, &counts).await;
    });
}

async fn check(ledger: &Watched, sold: u64, counts: &Counts) {
    assert_eq!(ledger.inner.open_reservations().await.unwrap(), [], "a reservation was not ended");
    let (opened, committed, released) = {
        let seen = ledger.seen();
        (seen.opened.clone(), seen.committed.clone(), seen.released.clone())
    };
    let mut ended = [&committed[..], &released[..]].concat();
    let ends = ended.len();
    ended.sort_unstable_by_key(|id| *id.nonce());
    ended.dedup();
    assert_eq!(ended.len(), ends, "a reservation was ended twice");
    assert!(opened.iter().all(|id| ended.contains(id)), "a reservation was forgotten");

    let opened_then_released = opened.iter().filter(|id| released.contains(id)).count() as u64;
    let given_back = opened_then_released.min(release_cap(sold));
    let spent = opened.len() as u64 - given_back;
    let used = ledger.used().await;
    assert!(spent <= sold && used == spent, "miscounted: {sold} sold, {spent} spent, {used} counted");
    let admitted = counts.admitted.load(Ordering::Relaxed);
    assert!(admitted as u64 <= sold + given_back, "{admitted} admitted on {sold}");
    let charged = admitted - counts.released.load(Ordering::Relaxed);
    assert_eq!(charged, committed.len(), "charged and committed");
    assert!(charged as u64 <= sold, "{charged} charged on {sold}");
}

// Two tests, for two cores.
#[test]
fn requests_take_what_was_sold_and_each_reservation_ends_once() {
    explore("requests, random", random(250_000), || requests(MemoryLedger::new()));
}

#[test]
fn requests_with_few_preemptions_take_what_was_sold_and_each_reservation_ends_once() {
    explore("requests, few preemptions", few_preemptions(250_000), || requests(MemoryLedger::new()));
}

fn ask(account: AccountId, nonce: u8, now: u64) -> Reserve {
    let id = ReservationId::new(account, [nonce; 16]);
    Reserve { id, units: 1, limit: 1, ceiling: u64::MAX, expires_at: NOW + 100, now }
}

async fn opens(ledger: Arc<MemoryLedger>, ask: Reserve) -> u64 {
    u64::from(matches!(ledger.reserve(&ask).await.unwrap(), Reserved::Open { .. }))
}

/// Releases that come before, while and after their reserve runs, each twice.
fn overtaken() {
    let account = AccountId::from([0; 32]);
    let ledger = Arc::new(MemoryLedger::new());
    let (a, b) = (ask(account, 1, NOW), ask(account, 2, NOW));
    block_on(async {
        let reserve = spawn(opens(ledger.clone(), a));
        let mut others = Vec::new();
        for _ in 0..2 {
            let (releases, credits) = (ledger.clone(), ledger.clone());
            others.push(spawn(async move { releases.release(&a.id, NOW).await.unwrap() }));
            others.push(spawn(async move { credits.credit(&account, 1, "e", NOW + 100).await.unwrap() }));
        }
        let kept = {
            let ledger = ledger.clone();
            spawn(async move {
                let opened = opens(ledger.clone(), b).await;
                ledger.commit(&b.id).await.unwrap();
                opened
            })
        };
        reserve.await.unwrap();
        let kept = kept.await.unwrap();
        for other in others {
            other.await.unwrap();
        }
        assert_eq!(ledger.open_reservations().await.unwrap(), [], "a reservation was not ended");
        let account = ledger.account(&account).await.unwrap().unwrap();
        assert_eq!(account, Account { limit: 2, used: kept, expires_at: account.expires_at });
    });
}

#[test]
fn a_release_that_overtakes_its_reserve_leaves_nothing_open() {
    explore("overtaken, random", random(150_000), overtaken);
    explore("overtaken, few preemptions", few_preemptions(125_000), overtaken);
}

/// The clock goes far forward for one request, and back.
fn purged() {
    let (account, neighbour) = (AccountId::from([0; 32]), AccountId::from([64; 32]));
    let ledger = Arc::new(MemoryLedger::new());
    block_on(async {
        let given_back = {
            let (ledger, a) = (ledger.clone(), ask(account, 1, NOW));
            spawn(async move {
                let opened = opens(ledger.clone(), a).await;
                ledger.release(&a.id, NOW).await.unwrap();
                opened
            })
        };
        let mut kept = Vec::new();
        for nonce in 2..4 {
            let (ledger, b) = (ledger.clone(), ask(account, nonce, NOW));
            kept.push(spawn(async move {
                let opened = opens(ledger.clone(), b).await;
                ledger.commit(&b.id).await.unwrap();
                opened
            }));
        }
        let later = Reserve { expires_at: NOW + 10_000, ..ask(neighbour, 4, NOW + 5_000) };
        let purge = spawn(opens(ledger.clone(), later));
        given_back.await.unwrap();
        assert_eq!(purge.await.unwrap(), 1);
        let mut used = opens(ledger.clone(), ask(account, 5, NOW)).await;
        for task in kept {
            used += task.await.unwrap();
        }
        assert!(used <= 1, "{used} of 1 used");
    });
}

#[test]
fn a_purge_revives_no_use() {
    explore("purged, random", random(125_000), purged);
    explore("purged, few preemptions", few_preemptions(125_000), purged);
}

#[test]
#[should_panic(expected = "miscounted")]
fn a_ledger_that_reads_and_then_writes_is_caught() {
    explore("naive", random(10_000), || requests(Naive::default()));
}

#[test]
#[should_panic(expected = "a reservation was not ended")]
fn a_ledger_without_tombstones_is_caught() {
    explore("forgetful", random(10_000), || requests(Forgetful::default()));
}
