//! Metering in memory on two threads: a debit is a reserve and its commit,
//! through the `Ledger` trait as the gate uses it. And what a million tokens take.

#![allow(missing_docs)]

use std::hint::black_box;
use std::pin::pin;
use std::sync::{Arc, Barrier};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Instant;

use l402::ledger::{AccountId, ReservationId, Reserve, Reserved};
use l402::{Ledger, MemoryLedger, PaymentHash};
use sha2::{Digest, Sha256};

const THREADS: u64 = 2;
const DEBITS: u64 = 500_000;
const ROUNDS: usize = 11;

fn main() {
    // `cargo test --benches` asks for a trial run only.
    let (rounds, debits) =
        if std::env::args().any(|arg| arg == "--bench") { (ROUNDS, DEBITS) } else { (1, 100) };
    for (name, accounts) in [("10,000 accounts", 10_000), ("one account", 1)] {
        let mut rates: Vec<_> = (0..rounds).map(|_| round(accounts, debits)).collect();
        rates.sort_by(f64::total_cmp);
        println!(
            "{THREADS} threads, {name}: {:.2} million debits/s (median of {rounds} rounds; at least 1)",
            rates[rounds / 2] / 1e6
        );
    }
    let tokens = if rounds == ROUNDS { 1_000_000 } else { 1_000 };
    println!("{tokens} live tokens: {} bytes each", bytes_per_token(tokens));
}

/// What a used token takes, in bytes, where a million are alive.
fn bytes_per_token(tokens: u64) -> u64 {
    let ledger = MemoryLedger::new();
    let taken = allocation_counter::measure(|| (0..tokens).for_each(|n| debit(&ledger, account(n), n)));
    u64::try_from(taken.bytes_current).expect("something is kept") / tokens
}

/// Debits in a second, over all threads.
fn round(accounts: u64, debits: u64) -> f64 {
    let ledger: Arc<dyn Ledger> = Arc::new(MemoryLedger::new());
    let ids: Arc<Vec<AccountId>> = Arc::new((0..accounts).map(account).collect());
    let start = Arc::new(Barrier::new(usize::try_from(THREADS).expect("few threads") + 1));
    let threads: Vec<_> = (0..THREADS)
        .map(|thread| {
            let (ledger, ids, start) = (ledger.clone(), ids.clone(), start.clone());
            thread::spawn(move || {
                start.wait();
                for n in 0..debits {
                    debit(&*ledger, ids[spread(n, ids.len())], thread << 32 | n);
                }
            })
        })
        .collect();
    start.wait();
    let begin = Instant::now();
    for thread in threads {
        thread.join().expect("no debit is refused");
    }
    let elapsed = begin.elapsed();

    let used = |id| now(ledger.account(id)).expect("memory").map_or(0, |account| account.used);
    assert_eq!(ids.iter().map(used).sum::<u64>(), THREADS * debits, "every debit counts once");
    assert!(now(ledger.open_reservations()).expect("memory").is_empty(), "every debit is committed");
    rate(THREADS * debits, elapsed)
}

fn debit(ledger: &dyn Ledger, account: AccountId, n: u64) {
    let mut nonce = [0; 16];
    nonce[..8].copy_from_slice(&n.to_be_bytes());
    let id = ReservationId::new(account, nonce);
    let ask = Reserve {
        id,
        units: 1,
        limit: u64::MAX,
        ceiling: u64::MAX,
        expires_at: 2_000_000_000,
        now: 1_900_000_000,
    };
    let reserved = now(ledger.reserve(black_box(&ask))).expect("memory");
    assert!(matches!(reserved, Reserved::Open { .. }), "{reserved:?}");
    now(ledger.commit(&id)).expect("memory");
}

fn account(n: u64) -> AccountId {
    PaymentHash::from(<[u8; 32]>::from(Sha256::digest(n.to_be_bytes()))).into()
}

/// Which account a debit is from: all of them in turn, and not one after the other.
fn spread(n: u64, accounts: usize) -> usize {
    usize::try_from(n.wrapping_mul(7919) % accounts as u64).expect("less than the accounts")
}

/// The answer of a future that needs no waiting.
fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("it waits"),
    }
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn rate(debits: u64, elapsed: std::time::Duration) -> f64 {
    debits as f64 / elapsed.as_secs_f64()
}
