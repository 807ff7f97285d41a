//! The purchases of a store that has all of them in memory, and what each
//! operation does to them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Begun, DAY, Purchase, PurchaseState, Spent, StoreError};
use crate::client::budget::Budget;
use crate::preimage::{PaymentHash, Preimage};

/// Receipts of tokens that are gone, and as many tokens that are not.
pub(super) const MOST_PURCHASES: usize = 10_000;
/// Origins whose dropped receipts have a sum of their own.
pub(super) const MOST_ORIGINS: usize = 10_000;
/// What the sums of dropped receipts are kept by, in seconds.
pub(super) const MINUTE: u64 = 60;

#[derive(Clone, Default)]
pub(super) struct Book {
    /// In the order in which they were begun.
    pub(super) purchases: Vec<Purchase>,
    pub(super) dropped: Dropped,
}

/// What is left of receipts that were dropped for room, in msat.
#[derive(Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Dropped {
    pub(super) total_msat: u64,
    pub(super) origins: BTreeMap<String, u64>,
    /// Of the last day, by the end of the minute they were begun in.
    pub(super) minutes: BTreeMap<u64, u64>,
}

/// Every token that is kept is pending.
pub(super) const FULL: &str =
    "10,000 payments are pending: the next request to the origin of each looks up what became of it";

impl Book {
    pub(super) fn begin(
        &mut self,
        purchase: &Purchase,
        budget: &Budget,
        now: u64,
    ) -> Result<Begun, StoreError> {
        if self.find(purchase.payment_hash).is_some() {
            return Ok(Begun::Exists);
        }
        if let Err(limit) = budget.allows(&self.spent(&purchase.origin, now), purchase.cost_msat()) {
            return Ok(Begun::OverBudget(limit));
        }
        self.make_room(now)?;
        self.purchases.push(purchase.clone());
        Ok(Begun::Started)
    }

    /// Whether it changed anything, as of the next two.
    pub(super) fn settle(
        &mut self,
        payment_hash: PaymentHash,
        preimage: Option<Preimage>,
        fee_msat: u64,
        now: u64,
    ) -> Result<bool, StoreError> {
        let purchase = self.find(payment_hash).ok_or_else(|| unknown(payment_hash))?;
        Ok(purchase.settle(preimage, fee_msat, now))
    }

    pub(super) fn fail(&mut self, payment_hash: PaymentHash) -> bool {
        let before = self.purchases.len();
        let is_failed = |purchase: &Purchase| {
            purchase.payment_hash == payment_hash && matches!(purchase.state, PurchaseState::Pending)
        };
        self.purchases.retain(|purchase| !is_failed(purchase));
        self.purchases.len() < before
    }

    pub(super) fn discard(&mut self, payment_hash: PaymentHash) -> bool {
        self.find(payment_hash).is_some_and(Purchase::discard)
    }

    pub(super) fn of_origin(&self, origin: &str) -> Vec<Purchase> {
        let is_open = |purchase: &&Purchase| purchase.origin == origin && !is_gone(purchase);
        self.purchases.iter().rev().filter(is_open).cloned().collect()
    }

    pub(super) fn all(&self) -> Vec<Purchase> {
        self.purchases.iter().rev().cloned().collect()
    }

    pub(super) fn spent(&self, origin: &str, now: u64) -> Spent {
        let mut spent = Spent {
            origin_msat: self.dropped.origins.get(origin).copied().unwrap_or(0),
            total_msat: self.dropped.total_msat,
            ..Spent::default()
        };
        spent.add_dropped(self.dropped.minutes.iter().map(|(minute, msat)| (*minute, *msat)), now);
        for purchase in &self.purchases {
            spent.add(purchase, origin, now);
        }
        spent
    }

    fn find(&mut self, payment_hash: PaymentHash) -> Option<&mut Purchase> {
        self.purchases.iter_mut().find(|purchase| purchase.payment_hash == payment_hash)
    }

    /// Tokens that expired are gone, and there is room for one more.
    fn make_room(&mut self, now: u64) -> Result<(), StoreError> {
        for purchase in &mut self.purchases {
            if purchase.valid_until.is_some_and(|valid_until| valid_until <= now) {
                purchase.discard();
            }
        }
        let gone = self.purchases.iter().filter(|purchase| is_gone(purchase)).count();
        if self.purchases.len() - gone >= MOST_PURCHASES {
            let is_held = |purchase: &&mut Purchase| matches!(purchase.state, PurchaseState::Held { .. });
            self.purchases.iter_mut().find(is_held).ok_or_else(|| StoreError::new(FULL))?.discard();
        }
        let gone = self.purchases.iter().filter(|purchase| is_gone(purchase)).count();
        let mut excess = gone.saturating_sub(MOST_PURCHASES);
        let dropped = &mut self.dropped;
        self.purchases.retain(|purchase| {
            let drop = excess > 0 && is_gone(purchase);
            if drop {
                excess -= 1;
                dropped.add(purchase, now);
            }
            !drop
        });
        Ok(())
    }
}

impl Dropped {
    fn add(&mut self, receipt: &Purchase, now: u64) {
        let cost_msat = receipt.cost_msat();
        let add = |sum: &mut u64| *sum = sum.saturating_add(cost_msat);
        add(&mut self.total_msat);
        if self.origins.len() < MOST_ORIGINS || self.origins.contains_key(&receipt.origin) {
            add(self.origins.entry(receipt.origin.clone()).or_default());
        }
        self.minutes.retain(|minute, _| minute.saturating_add(DAY) > now);
        add(self.minutes.entry(minute(receipt.begun_at)).or_default());
    }
}

impl Spent {
    /// Adds sums of dropped receipts to those of hour and day.
    pub(super) fn add_dropped(&mut self, minutes: impl Iterator<Item = (u64, u64)>, now: u64) {
        let total_msat = self.total_msat;
        minutes.for_each(|(minute, msat)| self.add_at(msat, minute, now));
        self.total_msat = total_msat;
    }
}

/// The end of the minute that a purchase was begun in.
pub(super) fn minute(begun_at: u64) -> u64 {
    begun_at.div_ceil(MINUTE).saturating_mul(MINUTE)
}

pub(super) fn unknown(payment_hash: PaymentHash) -> StoreError {
    StoreError::new(format!("no purchase has the payment hash {payment_hash}"))
}

fn is_gone(purchase: &Purchase) -> bool {
    matches!(purchase.state, PurchaseState::Gone { .. })
}

#[cfg(test)]
mod tests {
    use super::super::HOUR;
    use super::*;
    use crate::client::budget::Limit;

    const NOW: u64 = 1_800_000_000;

    fn hash(n: usize) -> PaymentHash {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&n.to_be_bytes());
        PaymentHash::from_bytes(bytes)
    }

    fn preimage() -> Preimage {
        Preimage::from_bytes([7; 32])
    }

    fn purchase(n: usize, origin: &str) -> Purchase {
        let mut purchase = Purchase::new(hash(n), origin, 1_000, NOW);
        purchase.token = format!("token {n}");
        purchase
    }

    fn huge() -> Budget {
        let sat = 1_000_000_000;
        Budget::default()
            .with_request_sat(sat)
            .with_origin_sat(sat)
            .with_hour_sat(sat)
            .with_day_sat(sat)
            .with_total_sat(sat)
    }

    /// As many purchases as there may be, in this state.
    fn full(state: &PurchaseState) -> Book {
        let purchases = (0..MOST_PURCHASES).map(|n| {
            let mut purchase = purchase(n, &format!("https://{n}.example"));
            purchase.state = state.clone();
            purchase
        });
        Book { purchases: purchases.collect(), dropped: Dropped::default() }
    }

    #[test]
    fn a_receipt_that_is_dropped_stays_in_the_sums() {
        let mut book = full(&PurchaseState::Gone { fee_msat: 1, paid_at: NOW });
        let mut last = purchase(MOST_PURCHASES, "https://0.example");
        last.state = PurchaseState::Gone { fee_msat: 1, paid_at: NOW };
        book.purchases.push(last);
        let before = book.spent("https://0.example", NOW);
        assert_eq!(
            book.begin(&purchase(usize::MAX, "https://new.example"), &huge(), NOW).unwrap(),
            Begun::Started
        );
        assert_eq!(book.purchases.len(), MOST_PURCHASES + 1);
        assert!(book.find(hash(0)).is_none(), "the oldest is dropped");
        let mut after = book.spent("https://0.example", NOW);
        assert_eq!(after.total_msat, before.total_msat + 1_000);
        assert_eq!(after.origin_msat, 2 * 1_001);
        assert_eq!((after.hour_msat, after.day_msat), (after.total_msat, after.total_msat));
        after = book.spent("https://0.example", NOW + HOUR + MINUTE);
        assert_eq!((after.hour_msat, after.day_msat), (0, after.total_msat), "the hour moves on");
        after = book.spent("https://0.example", NOW + DAY + MINUTE);
        assert_eq!((after.origin_msat, after.day_msat), (2 * 1_001, 0), "the day moves on");
    }

    #[test]
    fn origins_beyond_the_most_are_in_the_sum_of_all_alone() {
        let mut dropped = Dropped::default();
        let mut receipt = purchase(0, "");
        for n in 0..=MOST_ORIGINS {
            receipt.origin = format!("https://{n}.example");
            dropped.add(&receipt, NOW);
            dropped.add(&receipt, NOW);
        }
        assert_eq!(dropped.origins.len(), MOST_ORIGINS);
        assert!(dropped.origins.values().all(|msat| *msat == 2_000));
        assert_eq!(dropped.total_msat, 2_000 * (MOST_ORIGINS as u64 + 1));
    }

    #[test]
    fn sums_of_minutes_end_after_a_day() {
        let mut dropped = Dropped::default();
        for second in 0..3 * DAY {
            if second % 20 == 0 {
                let mut receipt = purchase(0, "https://a.example");
                receipt.begun_at = NOW + second;
                dropped.add(&receipt, NOW + second);
            }
        }
        assert!(dropped.minutes.len() <= 24 * 60 + 1, "{}", dropped.minutes.len());
    }

    #[test]
    fn the_oldest_token_makes_room_for_a_new_one() {
        let held = PurchaseState::Held { preimage: preimage(), fee_msat: 0, paid_at: NOW };
        let mut book = full(&held);
        book.purchases[0].state = PurchaseState::Pending;
        assert_eq!(
            book.begin(&purchase(usize::MAX, "https://new.example"), &huge(), NOW).unwrap(),
            Begun::Started
        );
        assert!(
            matches!(book.purchases[0].state, PurchaseState::Pending),
            "nobody knows yet what became of it"
        );
        assert!(is_gone(&book.purchases[1]) && book.purchases[1].token.is_empty());
        assert!(!is_gone(&book.purchases[2]));
    }

    #[test]
    fn nothing_is_begun_where_all_are_pending() {
        let mut book = full(&PurchaseState::Pending);
        let error = book.begin(&purchase(usize::MAX, "https://new.example"), &huge(), NOW).unwrap_err();
        assert_eq!(std::error::Error::source(&error).unwrap().to_string(), FULL);
        assert_eq!(book.purchases.len(), MOST_PURCHASES);
        assert!(book.begin(&purchase(0, "x"), &huge(), NOW).is_ok_and(|begun| begun == Begun::Exists));
        let begun = book.begin(&purchase(usize::MAX, "x"), &Budget::default(), NOW).unwrap();
        assert_eq!(begun, Begun::OverBudget(Limit::Hour));
    }
}
