//! The contract of [`TokenStore`].
//!
//! ```
//! use std::sync::Arc;
//! use l402::{client::MemoryStore, conformance};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! // It is opened again in between: what forgets gives the same one each time.
//! let store = Arc::new(MemoryStore::new());
//! conformance::token_store::check(async || store.clone() as _).await;
//! # }
//! ```

mod budget;

use std::sync::Arc;

use crate::client::{Begun, Budget, Purchase, PurchaseState, Spent, TokenStore};
use crate::clock::{Clock, SystemClock, unix};
use crate::entropy::{SystemEntropy, random};
use crate::preimage::{PaymentHash, Preimage};

const SAT: u64 = 1_000;
const HOUR: u64 = 3_600;
const DAY: u64 = 86_400;

/// Checks every rule. `open` opens the store, and opens it again when the suite
/// has let go of it: what was written is there then. The store must be one of
/// the test's own: the suite moves time on, and spends.
///
/// # Panics
/// A rule is broken.
pub async fn check<F>(open: F)
where
    F: AsyncFn() -> Arc<dyn TokenStore>,
{
    let mut suite = Suite { store: open().await, now: unix(SystemClock.now()) };
    suite.run().await;
    let (kept, spent) = suite.what_is_reopened().await;
    let now = suite.now;
    drop(suite);
    Suite { store: open().await, now }.is_as_it_was(&kept, spent).await;
}

struct Suite {
    store: Arc<dyn TokenStore>,
    now: u64,
}

/// An origin that nothing is known of.
fn origin() -> String {
    format!("https://{}.example", hex::encode(random::<8>(&SystemEntropy)))
}

fn preimage() -> Preimage {
    Preimage::from_bytes(random(&SystemEntropy))
}

/// What tells one purchase from another, and one state from another.
fn told(purchase: &Purchase) -> impl PartialEq + std::fmt::Debug + use<> {
    let state = match &purchase.state {
        PurchaseState::Pending => ("pending", None, 0, 0),
        PurchaseState::Held { preimage, fee_msat, paid_at } => {
            ("held", Some(preimage.payment_hash()), *fee_msat, *paid_at)
        }
        PurchaseState::Gone { fee_msat, paid_at } => ("gone", None, *fee_msat, *paid_at),
    };
    // Debug shows what is compared: of the token its length alone.
    let texts = [&purchase.origin, &purchase.path, &purchase.scope, &purchase.invoice].map(Clone::clone);
    let numbers = [
        purchase.amount_msat,
        purchase.max_fee_msat,
        purchase.pay_by,
        purchase.begun_at,
        purchase.token.len() as u64,
        u64::from(purchase.is_single_use),
    ];
    (purchase.payment_hash, texts, numbers, purchase.valid_until, state)
}

impl Suite {
    async fn run(&mut self) {
        self.a_purchase_is_kept_as_it_was_begun().await;
        self.a_payment_hash_is_begun_once().await;
        self.a_settled_purchase_is_held_for_good().await;
        self.a_payment_without_a_preimage_is_gone().await;
        self.a_discarded_token_leaves_its_receipt().await;
        self.a_failed_purchase_never_was().await;
        self.unknown_hashes_are_harmless().await;
        self.origins_are_apart().await;
        self.the_latest_comes_first().await;
        self.each_limit_decides_alone().await;
        self.the_highest_fee_is_reserved_and_the_difference_freed().await;
        self.hour_and_day_move_on().await;
        self.what_was_begun_later_than_now_counts().await;
        self.nothing_is_overspent_at_once().await;
        self.huge_numbers_do_not_wrap().await;
        self.an_expired_token_is_no_surprise().await;
        self.nothing_is_printed_that_is_secret().await;
    }

    /// Two days on, so that nothing is left of hour and day.
    fn sleep(&mut self) {
        self.now += 2 * DAY;
    }

    /// A purchase of this many sat, begun now.
    fn purchase(&self, origin: &str, sat: u64) -> Purchase {
        let hash = PaymentHash::from_bytes(random(&SystemEntropy));
        let mut purchase = Purchase::new(hash, origin, sat * SAT, self.now);
        purchase.path = "/a path, \"quoted\"".into();
        purchase.scope = "forecast\n".into();
        purchase.token = format!("secret-{}", hex::encode(random::<32>(&SystemEntropy)));
        purchase.invoice = "lnbcrt1".into();
        purchase.max_fee_msat = SAT;
        purchase.pay_by = self.now + 60;
        purchase.valid_until = Some(self.now + HOUR);
        purchase.is_single_use = true;
        purchase
    }

    async fn begin_with(&self, purchase: &Purchase, budget: &Budget) -> Begun {
        self.store.begin(purchase, budget, self.now).await.expect("begin answers")
    }

    async fn begin(&self, purchase: &Purchase) {
        assert_eq!(
            self.begin_with(purchase, &wide()).await,
            Begun::Started,
            "what the budget allows is begun"
        );
    }

    async fn settle(&self, purchase: &Purchase, preimage: Option<Preimage>, fee_msat: u64) {
        self.store
            .settle(purchase.payment_hash, preimage, fee_msat, self.now + 1)
            .await
            .expect("settle answers");
    }

    async fn fail(&self, purchase: &Purchase) {
        self.store.fail(purchase.payment_hash).await.expect("fail answers");
    }

    async fn discard(&self, purchase: &Purchase) {
        self.store.discard(purchase.payment_hash).await.expect("discard answers");
    }

    async fn open(&self, origin: &str) -> Vec<Purchase> {
        self.store.of_origin(origin).await.expect("of_origin answers")
    }

    async fn kept(&self, purchase: &Purchase) -> Option<Purchase> {
        let all = self.store.all().await.expect("all answers");
        all.into_iter().find(|kept| kept.payment_hash == purchase.payment_hash)
    }

    async fn spent(&self, origin: &str) -> Spent {
        self.store.spent(origin, self.now).await.expect("spent answers")
    }

    async fn a_purchase_is_kept_as_it_was_begun(&self) {
        let origin = origin();
        assert!(self.open(&origin).await.is_empty(), "an origin that sold nothing has no purchases");
        let purchase = self.purchase(&origin, 10);
        self.begin(&purchase).await;
        for kept in [self.open(&origin).await.pop(), self.kept(&purchase).await] {
            let kept = kept.expect("what was begun is there");
            assert_eq!(told(&kept), told(&purchase), "a purchase is kept as it was begun");
            assert_eq!(kept.token, purchase.token, "with its token");
        }
    }

    async fn a_payment_hash_is_begun_once(&self) {
        let origin = origin();
        let purchase = self.purchase(&origin, 10);
        self.begin(&purchase).await;
        let mut other = self.purchase(&origin, 20);
        other.payment_hash = purchase.payment_hash;
        let none = wide().with_request_sat(0);
        for again in [&purchase, &other] {
            assert_eq!(self.begin_with(again, &wide()).await, Begun::Exists, "a payment hash is begun once");
            assert_eq!(self.begin_with(again, &none).await, Begun::Exists, "whatever the budget is");
        }
        assert_eq!(self.open(&origin).await.len(), 1, "and written once");
        assert_eq!(self.spent(&origin).await.origin_msat, 11 * SAT, "and counted once");
        self.settle(&purchase, Some(preimage()), 0).await;
        assert_eq!(self.begin_with(&other, &wide()).await, Begun::Exists, "also where it is held");
        self.discard(&purchase).await;
        assert_eq!(self.begin_with(&other, &wide()).await, Begun::Exists, "also where it is gone");
    }

    async fn a_settled_purchase_is_held_for_good(&self) {
        let origin = origin();
        let purchase = self.purchase(&origin, 10);
        self.begin(&purchase).await;
        let preimage = preimage();
        self.settle(&purchase, Some(preimage.clone()), 3).await;
        let held = self.kept(&purchase).await.expect("what was settled is there");
        assert_eq!(held.token, purchase.token, "a held purchase has its token");
        let PurchaseState::Held { preimage: shown, fee_msat, paid_at } = &held.state else {
            panic!("what was settled with a preimage is held: {:?}", held.state)
        };
        assert_eq!(shown.to_hex(), preimage.to_hex(), "with its preimage");
        assert_eq!((*fee_msat, *paid_at), (3, self.now + 1), "its fee, and when it was paid");
        self.settle(&purchase, None, 9).await;
        self.settle(&purchase, Some(self::preimage()), 9).await;
        self.fail(&purchase).await;
        let after = self.open(&origin).await.pop().expect("what is held is there");
        assert_eq!(told(&after), told(&held), "what is held is settled once, and does not fail");
    }

    async fn a_payment_without_a_preimage_is_gone(&self) {
        let origin = origin();
        let purchase = self.purchase(&origin, 10);
        self.begin(&purchase).await;
        self.settle(&purchase, None, 3).await;
        self.is_gone(&purchase, 3).await;
        self.settle(&purchase, Some(preimage()), 9).await;
        self.is_gone(&purchase, 3).await;
    }

    async fn a_discarded_token_leaves_its_receipt(&self) {
        let origin = origin();
        let purchase = self.purchase(&origin, 10);
        self.begin(&purchase).await;
        self.discard(&purchase).await;
        let pending = self.kept(&purchase).await.expect("a pending purchase is not discarded");
        assert!(matches!(pending.state, PurchaseState::Pending), "a pending purchase is not discarded");
        self.settle(&purchase, Some(preimage()), 3).await;
        for _ in 0..2 {
            self.discard(&purchase).await;
            self.is_gone(&purchase, 3).await;
        }
        self.settle(&purchase, Some(preimage()), 9).await;
        self.fail(&purchase).await;
        self.is_gone(&purchase, 3).await;
    }

    /// Its receipt is left, and costs the amount with this fee, in msat.
    async fn is_gone(&self, purchase: &Purchase, fee_msat: u64) {
        assert!(self.open(&purchase.origin).await.is_empty(), "what is gone is not of its origin any more");
        let gone = self.kept(purchase).await.expect("the receipt of what is gone is there");
        assert!(gone.token.is_empty() && gone.invoice.is_empty(), "what is gone has no token");
        assert!(
            matches!(gone.state, PurchaseState::Gone { fee_msat: fee, paid_at } if fee == fee_msat && paid_at == self.now + 1),
            "what is gone tells its fee and when it was paid: {:?}",
            gone.state
        );
        assert_eq!(
            self.spent(&purchase.origin).await.origin_msat,
            purchase.amount_msat + fee_msat,
            "what is gone was spent"
        );
    }

    async fn a_failed_purchase_never_was(&self) {
        let origin = origin();
        let before = self.spent(&origin).await;
        let purchase = self.purchase(&origin, 10);
        self.begin(&purchase).await;
        assert_ne!(self.spent(&origin).await, before, "a pending purchase counts");
        for _ in 0..2 {
            self.fail(&purchase).await;
            assert!(self.kept(&purchase).await.is_none(), "what failed is removed");
            assert_eq!(self.spent(&origin).await, before, "and what it reserved is free");
        }
        self.begin(&purchase).await;
    }

    async fn unknown_hashes_are_harmless(&self) {
        let origin = origin();
        let before = self.spent(&origin).await;
        let purchase = self.purchase(&origin, 10);
        self.fail(&purchase).await;
        self.discard(&purchase).await;
        let settled =
            self.store.settle(purchase.payment_hash, Some(preimage()), 0, self.now).await.map_err(drop);
        assert_eq!(settled, Err(()), "a payment that was never begun is an error");
        assert!(self.kept(&purchase).await.is_none(), "and no purchase");
        assert_eq!(self.spent(&origin).await, before, "and counts nothing");
    }

    async fn origins_are_apart(&self) {
        let (one, other) = (origin(), origin());
        self.begin(&self.purchase(&one, 10)).await;
        assert!(self.open(&other).await.is_empty(), "a purchase is of its origin");
        let sums = [self.spent(&one).await, self.spent(&other).await];
        assert_eq!(sums.map(|sum| sum.origin_msat), [11 * SAT, 0], "and counts there");
        assert_eq!(sums[0].total_msat, sums[1].total_msat, "what was spent in all is one sum");
        let upper = one.to_uppercase();
        assert!(self.open(&upper).await.is_empty(), "origins are equal byte by byte");
        assert_eq!(self.spent(&upper).await.origin_msat, 0, "origins are equal byte by byte");
    }

    async fn the_latest_comes_first(&self) {
        let origin = origin();
        let purchases: Vec<_> = (1..=3).map(|sat| self.purchase(&origin, sat)).collect();
        for purchase in &purchases {
            self.begin(purchase).await;
        }
        self.settle(&purchases[1], Some(preimage()), 0).await;
        let hashes = |purchases: Vec<Purchase>| -> Vec<_> {
            let own = purchases.into_iter().filter(|purchase| purchase.origin == origin);
            own.map(|purchase| purchase.payment_hash).collect()
        };
        let latest: Vec<_> = purchases.iter().rev().map(|purchase| purchase.payment_hash).collect();
        assert_eq!(hashes(self.open(&origin).await), latest, "the purchase begun last comes first");
        assert_eq!(
            hashes(self.store.all().await.expect("all answers")),
            latest,
            "the purchase begun last comes first"
        );
    }

    async fn an_expired_token_is_no_surprise(&mut self) {
        self.sleep();
        let origin = origin();
        let purchase = self.purchase(&origin, 10);
        self.begin(&purchase).await;
        self.settle(&purchase, Some(preimage()), SAT).await;
        self.now += HOUR;
        let other = self.purchase(&self::origin(), 10);
        self.begin(&other).await;
        let kept = self.kept(&purchase).await.expect("the receipt of an expired token is there");
        match kept.state {
            PurchaseState::Held { .. } => assert_eq!(kept.token, purchase.token, "it may be held still"),
            _ => assert!(kept.token.is_empty(), "or it is gone, with its token"),
        }
        assert_eq!(self.spent(&origin).await.origin_msat, 11 * SAT, "it was spent all the same");
    }

    async fn nothing_is_printed_that_is_secret(&self) {
        let purchase = self.purchase(&origin(), 1);
        let preimage = preimage();
        self.begin(&purchase).await;
        self.settle(&purchase, Some(preimage.clone()), 0).await;
        let printed = format!("{:?} {:#?}", self.store, self.kept(&purchase).await);
        for secret in [&purchase.token, &preimage.to_hex()] {
            assert!(!printed.contains(secret.as_str()), "no Debug of a store or purchase holds a secret");
        }
    }

    /// A purchase in each state, and what was spent: to be there when the store
    /// is opened again.
    async fn what_is_reopened(&mut self) -> (Vec<Purchase>, Spent) {
        self.sleep();
        let origin = origin();
        let purchases: Vec<_> = (1..=4).map(|sat| self.purchase(&origin, sat)).collect();
        for purchase in &purchases {
            self.begin(purchase).await;
        }
        self.settle(&purchases[1], Some(preimage()), 5).await;
        self.settle(&purchases[2], Some(preimage()), 6).await;
        self.discard(&purchases[2]).await;
        self.fail(&purchases[3]).await;
        let all = self.store.all().await.expect("all answers");
        let own = all.into_iter().filter(|kept| kept.origin == origin).collect::<Vec<_>>();
        assert_eq!(own.len(), 3);
        (own, self.spent(&origin).await)
    }

    async fn is_as_it_was(&self, kept: &[Purchase], spent: Spent) {
        let origin = &kept[0].origin;
        let all = self.store.all().await.expect("all answers");
        let own: Vec<_> = all.iter().filter(|purchase| purchase.origin == *origin).collect();
        let before: Vec<_> = kept.iter().map(told).collect();
        let after: Vec<_> = own.iter().map(|purchase| told(purchase)).collect();
        assert_eq!(after, before, "what was written is there when the store is opened again");
        for (before, after) in kept.iter().zip(own) {
            assert_eq!(after.token, before.token, "with its token");
        }
        assert_eq!(self.spent(origin).await, spent, "and counts as before");
    }
}

/// A budget that lets all of the suite pass.
fn wide() -> Budget {
    Budget::default()
        .with_request_sat(u64::MAX)
        .with_origin_sat(u64::MAX)
        .with_hour_sat(u64::MAX)
        .with_day_sat(u64::MAX)
        .with_total_sat(u64::MAX)
}
