//! The contract of [`Ledger`].
//!
//! ```
//! use std::sync::Arc;
//! use l402::{MemoryLedger, conformance};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! conformance::ledger::check(Arc::new(MemoryLedger::new())).await;
//! # }
//! ```

use std::sync::Arc;

use tokio::task::JoinSet;

use crate::clock::{Clock, SystemClock, unix};
use crate::entropy::{SystemEntropy, random};
use crate::ledger::{
    AccountId, LEASE, Ledger, ReservationId, Reserve, Reserved, Revocation, Revocations, release_cap,
};
use crate::macaroon::TokenId;
use crate::preimage::PaymentHash;

/// Checks every rule. The store must be one of the test's own: the suite moves
/// time on, and rows go.
///
/// # Panics
/// A rule is broken.
pub async fn check(ledger: Arc<dyn Ledger>) {
    let now = unix(SystemClock.now());
    Suite { ledger, now }.run().await;
}

struct Suite {
    ledger: Arc<dyn Ledger>,
    now: u64,
}

impl Suite {
    async fn run(&self) {
        self.units_run_out().await;
        self.nothing_is_oversold_at_once().await;
        self.a_reservation_is_made_once().await;
        self.a_release_gives_back_once().await;
        self.a_commit_is_final().await;
        self.a_release_before_its_reserve_prevents_it().await;
        self.releases_are_capped().await;
        self.a_release_past_the_lease_changes_nothing().await;
        self.credits_count_once_each().await;
        self.a_ceiling_holds_whatever_was_credited().await;
        self.huge_numbers_do_not_wrap().await;
        self.unknown_ids_are_harmless().await;
        self.revocations_are_known().await;
        self.what_was_purged_stays_used_up().await;
    }

    /// An account that nothing is known of.
    fn account() -> AccountId {
        PaymentHash::from_bytes(random(&SystemEntropy)).into()
    }

    fn ask(&self, account: AccountId, units: u64, limit: u64) -> Reserve {
        let id = ReservationId::new(account, random(&SystemEntropy));
        Reserve { id, units, limit, ceiling: u64::MAX, expires_at: self.now + 86_400, now: self.now }
    }

    async fn reserve(&self, ask: &Reserve) -> Reserved {
        self.ledger.reserve(ask).await.expect("reserve answers")
    }

    async fn release(&self, ask: &Reserve) {
        self.ledger.release(&ask.id, self.now).await.expect("release answers");
    }

    async fn used(&self, account: AccountId) -> u64 {
        self.ledger.account(&account).await.expect("account answers").map_or(0, |account| account.used)
    }

    async fn is_open(&self, ask: &Reserve) -> bool {
        let open = self.ledger.open_reservations().await.expect("open_reservations answers");
        open.iter().any(|open| open.id == ask.id)
    }

    async fn units_run_out(&self) {
        let account = Self::account();
        assert_eq!(
            self.ledger.account(&account).await.unwrap(),
            None,
            "an account that was never used is not known"
        );
        let first = self.ask(account, 4, 7);
        assert_eq!(self.reserve(&first).await, Reserved::Open { remaining: 3 }, "4 of 7 units leave 3");
        assert_eq!(
            self.reserve(&self.ask(account, 4, 7)).await,
            Reserved::UsedUp,
            "4 of 3 units are refused"
        );
        assert_eq!(
            self.reserve(&self.ask(account, 3, 7)).await,
            Reserved::Open { remaining: 0 },
            "3 of 3 units leave 0"
        );
        assert_eq!(self.reserve(&self.ask(account, 1, 7)).await, Reserved::UsedUp, "1 of 0 units is refused");
        let account = self.ledger.account(&account).await.unwrap().expect("a used account is known");
        assert_eq!((account.limit, account.used), (7, 7), "the account says what was sold and used");
        assert_eq!(account.expires_at, first.expires_at, "the account says when it ends");
    }

    async fn nothing_is_oversold_at_once(&self) {
        for limit in [1, 7, 100] {
            let account = Self::account();
            let mut tasks = JoinSet::new();
            for _ in 0..limit + 50 {
                let (ledger, ask) = (self.ledger.clone(), self.ask(account, 1, limit));
                tasks.spawn(async move { ledger.reserve(&ask).await.expect("reserve answers") });
            }
            let answers = tasks.join_all().await;
            let open = answers.iter().filter(|answer| matches!(answer, Reserved::Open { .. })).count();
            assert_eq!(open as u64, limit, "{limit} units are reserved {limit} times, also all at once");
        }
    }

    async fn a_reservation_is_made_once(&self) {
        let account = Self::account();
        let ask = self.ask(account, 1, 7);
        self.reserve(&ask).await;
        assert_eq!(
            self.reserve(&ask).await,
            Reserved::Open { remaining: 6 },
            "the same reservation again is the same"
        );
        assert_eq!(self.used(account).await, 1, "a reservation made twice is charged once");
        assert!(self.is_open(&ask).await, "an open reservation is listed");
    }

    async fn a_release_gives_back_once(&self) {
        let account = Self::account();
        let ask = self.ask(account, 2, 7);
        self.reserve(&ask).await;
        self.release(&ask).await;
        assert_eq!(self.used(account).await, 0, "a release gives the units back");
        self.release(&ask).await;
        assert_eq!(self.used(account).await, 0, "a second release gives nothing back");
        assert!(!self.is_open(&ask).await, "a released reservation is not listed");
    }

    async fn a_commit_is_final(&self) {
        let account = Self::account();
        let ask = self.ask(account, 1, 7);
        self.reserve(&ask).await;
        self.ledger.commit(&ask.id).await.expect("commit answers");
        self.ledger.commit(&ask.id).await.expect("a second commit answers");
        self.release(&ask).await;
        assert_eq!(self.used(account).await, 1, "a release after the commit gives nothing back");
        assert!(!self.is_open(&ask).await, "a committed reservation is not listed");
    }

    async fn a_release_before_its_reserve_prevents_it(&self) {
        let account = Self::account();
        let ask = self.ask(account, 1, 7);
        self.release(&ask).await;
        assert_eq!(
            self.reserve(&ask).await,
            Reserved::Released,
            "what was released before it was made is not made"
        );
        assert_eq!(self.used(account).await, 0, "and charges nothing");
        assert_eq!(
            self.reserve(&self.ask(account, 7, 7)).await,
            Reserved::Open { remaining: 0 },
            "others are made"
        );
    }

    async fn releases_are_capped(&self) {
        for limit in [1, 5, 30, 2_000] {
            let account = Self::account();
            let cap = release_cap(limit);
            for n in 0..=cap {
                let ask = self.ask(account, 1, limit);
                self.reserve(&ask).await;
                self.release(&ask).await;
                let spent = u64::from(n == cap);
                assert_eq!(self.used(account).await, spent, "release {} of {cap} for {limit} sold", n + 1);
            }
        }
        for (limit, credited) in [(0, 1), (0, 2_000), (5, 1_995)] {
            let account = Self::account();
            self.ledger.credit(&account, credited, "evt", self.now + 86_400).await.expect("credit answers");
            let cap = release_cap(limit + credited);
            for n in 0..=cap {
                let ask = self.ask(account, 1, limit);
                self.reserve(&ask).await;
                self.release(&ask).await;
                let spent = u64::from(n == cap);
                assert_eq!(
                    self.used(account).await,
                    spent,
                    "release {} of {cap} for {credited} credited",
                    n + 1
                );
            }
        }
        let account = Self::account();
        for (spent, reason) in [(0, "a dear request is forgiven once"), (500, "and not twice")] {
            let ask = self.ask(account, 500, 1_000);
            self.reserve(&ask).await;
            self.release(&ask).await;
            assert_eq!(self.used(account).await, spent, "{reason}");
        }
    }

    async fn a_release_past_the_lease_changes_nothing(&self) {
        let account = Self::account();
        let ask = self.ask(account, 1, 7);
        self.reserve(&ask).await;
        let late = self.now + LEASE.as_secs();
        self.ledger.release(&ask.id, late).await.expect("release answers");
        assert_eq!(self.used(account).await, 1, "past its lease a reservation counts as spent");
        assert!(self.is_open(&ask).await, "and stays listed");
        self.ledger.commit(&ask.id).await.expect("commit answers");
        assert!(!self.is_open(&ask).await, "until it is committed");
    }

    async fn credits_count_once_each(&self) {
        let account = Self::account();
        self.reserve(&self.ask(account, 5, 5)).await;
        for event in ["evt-1", "evt-1", "evt-2"] {
            self.ledger.credit(&account, 10, event, self.now + 86_400).await.expect("credit answers");
        }
        assert_eq!(
            self.reserve(&self.ask(account, 15, 5)).await,
            Reserved::Open { remaining: 5 },
            "two events of 10 units each count, and each counts once"
        );
        assert_eq!(
            self.ledger.account(&account).await.unwrap().unwrap().limit,
            25,
            "the limit says sold and credited"
        );
    }

    async fn a_ceiling_holds_whatever_was_credited(&self) {
        let account = Self::account();
        self.ledger.credit(&account, 10, "evt", self.now + 86_400).await.expect("credit answers");
        let low = |ask: Reserve| Reserve { ceiling: 2, ..ask };
        assert_eq!(
            self.reserve(&low(self.ask(account, 1, 5))).await,
            Reserved::Open { remaining: 1 },
            "1 of 2 leaves 1"
        );
        assert_eq!(self.reserve(&low(self.ask(account, 2, 5))).await, Reserved::UsedUp, "2 of 1 are refused");
        assert_eq!(
            self.reserve(&self.ask(account, 14, 5)).await,
            Reserved::Open { remaining: 0 },
            "others have all"
        );
        assert_eq!(
            self.reserve(&low(self.ask(account, 1, 5))).await,
            Reserved::UsedUp,
            "beyond the ceiling is refused"
        );
    }

    async fn huge_numbers_do_not_wrap(&self) {
        let account = Self::account();
        let most = u64::MAX;
        self.reserve(&self.ask(account, 1, most)).await;
        self.ledger.credit(&account, most, "evt", self.now + 86_400).await.expect("credit answers");
        assert_eq!(
            self.reserve(&self.ask(account, most, most)).await,
            Reserved::UsedUp,
            "more than there is, is refused"
        );
        assert_eq!(self.used(account).await, 1, "and charges nothing");
    }

    async fn unknown_ids_are_harmless(&self) {
        let ask = self.ask(Self::account(), 1, 7);
        self.ledger.commit(&ask.id).await.expect("a commit of an unknown reservation answers");
        assert_eq!(self.used(ask.id.account()).await, 0, "and charges nothing");
    }

    async fn revocations_are_known(&self) {
        let hash = PaymentHash::from_bytes(random(&SystemEntropy));
        let id = TokenId::from([0; 32]);
        let is_revoked = |known: &Revocations| known.contains(hash, id, "conformance");
        assert!(!is_revoked(self.ledger.revocations()), "nothing is revoked yet");
        for _ in 0..2 {
            self.ledger.revoke(&Revocation::Token(hash)).await.expect("revoke answers");
            assert!(is_revoked(self.ledger.revocations()), "what was revoked is known at once");
        }
    }

    /// Last, for it moves time on.
    async fn what_was_purged_stays_used_up(&self) {
        let account = Self::account();
        let ask = Reserve { expires_at: self.now + 100, ..self.ask(account, 1, 1) };
        assert_eq!(self.reserve(&ask).await, Reserved::Open { remaining: 0 });
        self.ledger.commit(&ask.id).await.expect("commit answers");

        let day = self.now + 86_400;
        let later = |account| Reserve { now: day, expires_at: day + 100, ..self.ask(account, 1, 1) };
        // A ledger that spreads its rows may take many calls to purge one.
        for _ in 0..2_000 {
            self.reserve(&later(Self::account())).await;
            if self.ledger.account(&account).await.unwrap().is_none() {
                break;
            }
        }
        assert_eq!(
            self.ledger.account(&account).await.unwrap(),
            None,
            "a row goes some time after its token expired"
        );
        let again = Reserve { id: ReservationId::new(account, random(&SystemEntropy)), ..ask };
        assert_eq!(
            self.reserve(&again).await,
            Reserved::Expired,
            "a clock that goes back revives no used-up token"
        );
    }
}
