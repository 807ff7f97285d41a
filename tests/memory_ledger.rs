//! `MemoryLedger` keeps the contract of `Ledger`.

#![allow(missing_docs)]

use std::sync::{Arc, Barrier};

use l402::ledger::{
    Account, AccountId, LEASE, LedgerError, OpenReservation, ReservationId, Reserve, Reserved, release_cap,
};
use l402::{Ledger, MemoryLedger, PaymentHash, Revocation};

const NOW: u64 = 1_900_000_000;
const DAY: u64 = 86_400;

fn account(n: u8) -> AccountId {
    PaymentHash::from_bytes([n; 32]).into()
}

fn id(n: u64) -> ReservationId {
    let mut nonce = [0; 16];
    nonce[..8].copy_from_slice(&n.to_be_bytes());
    ReservationId::new(account(1), nonce)
}

/// One unit of an account of this limit.
fn ask(n: u64, limit: u64) -> Reserve {
    Reserve { id: id(n), units: 1, limit, ceiling: u64::MAX, expires_at: NOW + DAY, now: NOW }
}

fn open(remaining: u64) -> Reserved {
    Reserved::Open { remaining }
}

async fn used(ledger: &impl Ledger) -> u64 {
    ledger.account(&account(1)).await.unwrap().map_or(0, |account| account.used)
}

async fn opened(ledger: &impl Ledger) -> Vec<OpenReservation> {
    ledger.open_reservations().await.unwrap()
}

#[tokio::test]
async fn uses_are_spent_one_by_one_and_no_more_than_were_sold() {
    let ledger = MemoryLedger::new();
    assert_eq!(ledger.account(&account(1)).await.unwrap(), None, "never used");
    for n in 0..3 {
        assert_eq!(ledger.reserve(&ask(n, 3)).await.unwrap(), open(2 - n));
        ledger.commit(&id(n)).await.unwrap();
    }
    assert_eq!(ledger.reserve(&ask(3, 3)).await.unwrap(), Reserved::UsedUp);
    let Account { limit, used, expires_at, .. } = ledger.account(&account(1)).await.unwrap().unwrap();
    assert_eq!((limit, used, expires_at), (3, 3, NOW + DAY));
}

#[tokio::test]
async fn a_refused_reserve_leaves_nothing_to_end() {
    let ledger = MemoryLedger::new();
    ledger.reserve(&ask(0, 1)).await.unwrap();
    assert_eq!(ledger.reserve(&ask(1, 1)).await.unwrap(), Reserved::UsedUp);
    assert_eq!(opened(&ledger).await.len(), 1);
    ledger.release(&id(1), NOW).await.unwrap();
    ledger.commit(&id(1)).await.unwrap();
    assert_eq!((used(&ledger).await, opened(&ledger).await.len()), (1, 1), "another's stays");
}

#[tokio::test]
async fn units_are_spent_together_or_not_at_all() {
    let ledger = MemoryLedger::new();
    let units = |n, units| Reserve { units, ..ask(n, 10) };
    assert_eq!(ledger.reserve(&units(0, 7)).await.unwrap(), open(3));
    assert_eq!(ledger.reserve(&units(1, 4)).await.unwrap(), Reserved::UsedUp);
    assert_eq!(ledger.reserve(&units(2, u64::MAX)).await.unwrap(), Reserved::UsedUp);
    assert_eq!(ledger.reserve(&units(3, 3)).await.unwrap(), open(0));
    ledger.release(&id(0), NOW).await.unwrap();
    assert_eq!(used(&ledger).await, 3);
}

#[tokio::test]
async fn every_operation_may_be_repeated() {
    let ledger = MemoryLedger::new();
    for _ in 0..3 {
        assert_eq!(ledger.reserve(&ask(0, 9)).await.unwrap(), open(8));
    }
    assert_eq!(used(&ledger).await, 1);
    for _ in 0..3 {
        ledger.commit(&id(0)).await.unwrap();
    }
    assert_eq!((used(&ledger).await, opened(&ledger).await.len()), (1, 0));

    ledger.reserve(&ask(1, 9)).await.unwrap();
    for _ in 0..3 {
        ledger.release(&id(1), NOW).await.unwrap();
    }
    assert_eq!((used(&ledger).await, opened(&ledger).await.len()), (1, 0));
}

#[tokio::test]
async fn what_was_committed_is_not_released_and_the_reverse() {
    let ledger = MemoryLedger::new();
    ledger.reserve(&ask(0, 9)).await.unwrap();
    ledger.commit(&id(0)).await.unwrap();
    ledger.release(&id(0), NOW).await.unwrap();
    assert_eq!(used(&ledger).await, 1);

    ledger.reserve(&ask(1, 9)).await.unwrap();
    ledger.release(&id(1), NOW).await.unwrap();
    ledger.commit(&id(1)).await.unwrap();
    assert_eq!(used(&ledger).await, 1);
}

#[tokio::test]
async fn a_release_that_comes_first_stops_its_reserve() {
    let ledger = MemoryLedger::new();
    ledger.release(&id(0), NOW).await.unwrap();
    for attempt in 0..3 {
        assert_eq!(ledger.reserve(&ask(0, 1)).await.unwrap(), Reserved::Released, "attempt {attempt}");
    }
    assert_eq!((used(&ledger).await, opened(&ledger).await.len()), (0, 0));
    assert_eq!(ledger.reserve(&ask(1, 1)).await.unwrap(), open(0), "and no other");
}

#[tokio::test]
async fn a_tombstone_costs_no_release() {
    let ledger = MemoryLedger::new();
    for n in 0..5 {
        ledger.release(&id(n), NOW).await.unwrap();
        assert_eq!(ledger.reserve(&ask(n, 1)).await.unwrap(), Reserved::Released);
    }
    ledger.reserve(&ask(5, 1)).await.unwrap();
    ledger.release(&id(5), NOW).await.unwrap();
    assert_eq!(used(&ledger).await, 0);
}

#[tokio::test]
async fn releases_beyond_the_cap_change_nothing() {
    for sold in [1, 2, 30, 2000] {
        let ledger = MemoryLedger::new();
        let cap = release_cap(sold);
        for n in 0..cap {
            assert_eq!(ledger.reserve(&ask(n, sold)).await.unwrap(), open(sold - 1));
            ledger.release(&id(n), NOW).await.unwrap();
            assert_eq!(used(&ledger).await, 0);
        }
        ledger.reserve(&ask(cap, sold)).await.unwrap();
        ledger.release(&id(cap), NOW).await.unwrap();
        assert_eq!((used(&ledger).await, opened(&ledger).await.len()), (1, 0), "sold {sold}");
    }
}

#[tokio::test]
async fn past_its_lease_a_reservation_is_spent_and_listed() {
    let lease = LEASE.as_secs();
    for (after, given_back) in [(0, true), (lease - 1, true), (lease, false), (lease + DAY, false)] {
        let ledger = MemoryLedger::new();
        ledger.reserve(&ask(0, 9)).await.unwrap();
        let listed = opened(&ledger).await;
        assert_eq!(listed.len(), 1);
        assert_eq!((listed[0].id, listed[0].units, listed[0].lease_until), (id(0), 1, NOW + lease));
        ledger.release(&id(0), NOW + after).await.unwrap();
        assert_eq!(used(&ledger).await, u64::from(!given_back), "after {after} s");
        assert_eq!(opened(&ledger).await.len(), usize::from(!given_back));
        ledger.commit(&id(0)).await.unwrap();
        assert_eq!((used(&ledger).await, opened(&ledger).await.len()), (u64::from(!given_back), 0));
    }
}

#[tokio::test]
async fn a_ceiling_binds_whoever_brings_it_and_nobody_else() {
    let ledger = MemoryLedger::new();
    let under = |n, ceiling| Reserve { ceiling, ..ask(n, 10) };
    assert_eq!(ledger.reserve(&under(0, 2)).await.unwrap(), open(1));
    assert_eq!(ledger.reserve(&under(1, 2)).await.unwrap(), open(0));
    assert_eq!(ledger.reserve(&under(2, 2)).await.unwrap(), Reserved::UsedUp);
    assert_eq!(ledger.reserve(&under(3, 0)).await.unwrap(), Reserved::UsedUp);
    assert_eq!(ledger.reserve(&under(4, 100)).await.unwrap(), open(7));
    assert_eq!(ledger.account(&account(1)).await.unwrap().unwrap().limit, 10);
}

#[tokio::test]
async fn what_is_credited_is_credited_once_for_each_event() {
    let ledger = MemoryLedger::new();
    for event in ["a", "a", "b", "a"] {
        ledger.credit(&account(1), 5, event, NOW + DAY).await.unwrap();
    }
    ledger.credit(&account(2), 5, "a", NOW + DAY).await.unwrap();
    assert_eq!(ledger.account(&account(1)).await.unwrap().unwrap().limit, 10);
    assert_eq!(ledger.account(&account(2)).await.unwrap().unwrap().limit, 5);
    for n in 0..13 {
        assert_eq!(ledger.reserve(&ask(n, 3)).await.unwrap(), open(12 - n), "3 sold, 10 credited");
    }
    assert_eq!(ledger.reserve(&ask(13, 3)).await.unwrap(), Reserved::UsedUp);
    ledger.credit(&account(1), u64::MAX, "c", NOW + DAY).await.unwrap();
    ledger.credit(&account(1), u64::MAX, "d", NOW + DAY).await.unwrap();
    assert!(matches!(ledger.reserve(&ask(14, 3)).await.unwrap(), Reserved::Open { .. }), "no overflow");
}

#[tokio::test]
async fn accounts_do_not_touch_each_other() {
    let ledger = MemoryLedger::new();
    // Two that share a shard, and two that do not.
    for (n, other) in [(1, 65), (2, 3)] {
        let of = |n| Reserve { id: ReservationId::new(account(n), [9; 16]), ..ask(0, 1) };
        assert_eq!(ledger.reserve(&of(n)).await.unwrap(), open(0));
        assert_eq!(ledger.reserve(&of(other)).await.unwrap(), open(0));
        ledger.release(&of(n).id, NOW).await.unwrap();
        assert_eq!(ledger.account(&account(other)).await.unwrap().unwrap().used, 1);
    }
}

#[tokio::test]
async fn rows_go_after_their_token_and_do_not_come_back() {
    let ledger = MemoryLedger::new();
    ledger.reserve(&ask(0, 1)).await.unwrap();
    ledger.commit(&id(0)).await.unwrap();
    let late = |expires_at, now| Reserve {
        expires_at,
        now,
        id: ReservationId::new(account(65), [1; 16]),
        ..ask(0, 5)
    };

    ledger.reserve(&late(NOW + 9 * DAY, NOW + DAY + 59)).await.unwrap();
    assert!(ledger.account(&account(1)).await.unwrap().is_some(), "a minute's margin");
    ledger.reserve(&late(NOW + 9 * DAY, NOW + DAY + 60)).await.unwrap();
    assert_eq!(ledger.account(&account(1)).await.unwrap(), None);

    // The clock goes back: the row is gone, and with it the token.
    assert_eq!(ledger.reserve(&ask(1, 1)).await.unwrap(), Reserved::Expired);
    assert_eq!(ledger.account(&account(1)).await.unwrap(), None, "no row is made for it");
    let young = Reserve { expires_at: NOW + DAY + 1, ..ask(2, 1) };
    assert_eq!(ledger.reserve(&young).await.unwrap(), open(0), "a token that was never purged is good");
}

#[tokio::test]
async fn a_row_lives_as_long_as_the_latest_end_that_was_named() {
    let ledger = MemoryLedger::new();
    let until = |n, expires_at, now| Reserve { expires_at, now, ..ask(n, 2) };
    ledger.reserve(&until(0, NOW + 10, NOW)).await.unwrap();
    ledger.reserve(&until(1, NOW + DAY, NOW)).await.unwrap();
    assert_eq!(ledger.reserve(&until(2, NOW + DAY, NOW + 3600)).await.unwrap(), Reserved::UsedUp);

    ledger.credit(&account(1), 1, "e", NOW + 2 * DAY).await.unwrap();
    assert_eq!(ledger.reserve(&until(3, NOW + 2 * DAY, NOW + DAY + 3600)).await.unwrap(), open(0));
}

#[tokio::test]
async fn a_release_of_what_was_purged_does_no_harm() {
    let ledger = MemoryLedger::new();
    ledger.reserve(&ask(0, 1)).await.unwrap();
    let other = ReservationId::new(account(65), [1; 16]);
    ledger
        .reserve(&Reserve { id: other, expires_at: NOW + 9 * DAY, now: NOW + 2 * DAY, ..ask(0, 5) })
        .await
        .unwrap();
    ledger.release(&id(0), NOW + 2 * DAY).await.unwrap();
    ledger.commit(&id(0)).await.unwrap();
    assert_eq!(used(&ledger).await, 0);
    assert_eq!(ledger.reserve(&ask(1, 1)).await.unwrap(), Reserved::Expired);
}

#[tokio::test]
async fn two_ledgers_have_two_instances() {
    let (a, b) = (MemoryLedger::new(), MemoryLedger::new());
    assert!(a.instance().is_some());
    assert_ne!(a.instance(), b.instance());
    assert_eq!(a.instance(), a.instance());
}

#[tokio::test]
async fn an_arc_of_a_ledger_is_the_ledger() {
    async fn exercise(ledger: impl Ledger) -> Result<(), LedgerError> {
        assert!(ledger.instance().is_some());
        assert_eq!(ledger.reserve(&ask(0, 3)).await?, open(2));
        assert_eq!(ledger.reserve(&ask(1, 3)).await?, open(1));
        assert_eq!(ledger.open_reservations().await?.len(), 2);
        ledger.commit(&id(0)).await?;
        ledger.release(&id(1), NOW).await?;
        ledger.credit(&account(1), 4, "e", NOW).await?;
        ledger.revoke(&Revocation::Key([0; 4])).await?;
        let account = ledger.account(&account(1)).await?.unwrap();
        assert_eq!((account.limit, account.used), (7, 1));
        Ok(())
    }

    exercise(MemoryLedger::new()).await.unwrap();
    exercise(Arc::new(MemoryLedger::new())).await.unwrap();
    let dynamic: Arc<dyn Ledger> = Arc::new(MemoryLedger::new());
    assert_eq!(dynamic.instance(), Arc::new(dynamic.clone()).instance());
    exercise(dynamic).await.unwrap();
}

/// Runs a future that needs no runtime.
fn now<F: Future>(future: F) -> F::Output {
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::pin!(future).poll(&mut cx) {
        std::task::Poll::Ready(output) => output,
        std::task::Poll::Pending => panic!("a memory ledger never waits"),
    }
}

/// Sold uses in the hands of 8 threads that all begin at once; each does this
/// with what it reserved. Gives how many were reserved.
fn race(
    ledger: &MemoryLedger,
    sold: u64,
    each: u64,
    end: impl Fn(&MemoryLedger, &ReservationId) + Sync,
) -> u64 {
    let barrier = Barrier::new(8);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|thread| {
                let (barrier, end) = (&barrier, &end);
                scope.spawn(move || {
                    barrier.wait();
                    let mut reserved = 0;
                    for n in 0..each {
                        let ask = ask(thread * each + n, sold);
                        match now(ledger.reserve(&ask)).unwrap() {
                            Reserved::Open { remaining } => {
                                assert!(remaining < sold);
                                reserved += 1;
                                end(ledger, &ask.id);
                            }
                            other => assert_eq!(other, Reserved::UsedUp),
                        }
                    }
                    reserved
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    })
}

#[test]
fn eight_threads_never_get_more_than_was_sold() {
    for sold in [1, 7, 1000] {
        for _ in 0..20 {
            let ledger = MemoryLedger::new();
            let reserved = race(&ledger, sold, 2 * sold, |ledger, id| now(ledger.commit(id)).unwrap());
            assert_eq!(reserved, sold);
            assert_eq!(now(used(&ledger)), sold);
            assert_eq!(now(opened(&ledger)).len(), 0);
        }
    }
}

#[test]
fn eight_threads_that_release_get_what_was_sold_and_the_cap() {
    for sold in [1, 7, 1000] {
        for _ in 0..20 {
            let ledger = MemoryLedger::new();
            let each = sold + release_cap(sold);
            let reserved = race(&ledger, sold, each, |ledger, id| now(ledger.release(id, NOW)).unwrap());
            assert_eq!(reserved, sold + release_cap(sold));
            assert_eq!(now(used(&ledger)), sold);
            assert_eq!(now(opened(&ledger)).len(), 0);
        }
    }
}

#[test]
fn a_reserve_and_its_release_at_once_leave_nothing() {
    for round in 0..2000 {
        let ledger = MemoryLedger::new();
        let barrier = Barrier::new(2);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                barrier.wait();
                now(ledger.release(&id(round), NOW)).unwrap();
            });
            barrier.wait();
            now(ledger.reserve(&ask(round, 1))).unwrap();
        });
        assert_eq!((now(used(&ledger)), now(opened(&ledger)).len()), (0, 0), "round {round}");
    }
}
