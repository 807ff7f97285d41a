//! What is allowed, and what counts.

use tokio::task::JoinSet;

use super::{DAY, HOUR, SAT, Suite, origin, preimage, wide};
use crate::client::{Begun, Limit};

impl Suite {
    pub(super) async fn each_limit_decides_alone(&mut self) {
        for limit in [Limit::Request, Limit::Origin, Limit::Hour, Limit::Day, Limit::Total] {
            self.sleep();
            let origin = origin();
            let budget = |sat| match limit {
                Limit::Request => wide().with_request_sat(sat),
                Limit::Origin => wide().with_origin_sat(sat),
                Limit::Hour => wide().with_hour_sat(sat),
                Limit::Day => wide().with_day_sat(sat),
                Limit::Total => wide().with_total_sat(sat),
            };
            // In whole sat, so that a limit can be set to it.
            let mut spent = self.purchase(&origin, 7);
            spent.amount_msat += SAT - self.spent(&origin).await.total_msat % SAT;
            self.begin(&spent).await;
            let sums = self.spent(&origin).await;
            let before = match limit {
                Limit::Request => 0,
                Limit::Origin => sums.origin_msat,
                Limit::Hour => sums.hour_msat,
                Limit::Day => sums.day_msat,
                Limit::Total => sums.total_msat,
            };
            let room = before.div_ceil(SAT) + 11;
            let mut purchase = self.purchase(&origin, 10);
            purchase.max_fee_msat = SAT + (before.div_ceil(SAT) * SAT - before) + 1;
            let over = self.begin_with(&purchase, &budget(room)).await;
            assert_eq!(
                over,
                Begun::OverBudget(limit),
                "one msat beyond a limit is refused, and the limit named"
            );
            assert!(self.kept(&purchase).await.is_none(), "what is refused is not written");
            assert_eq!(self.spent(&origin).await, sums, "and counts nothing");
            purchase.max_fee_msat -= 1;
            let within = self.begin_with(&purchase, &budget(room)).await;
            assert_eq!(within, Begun::Started, "a limit may be reached: {limit:?}");
        }
    }

    pub(super) async fn the_highest_fee_is_reserved_and_the_difference_freed(&mut self) {
        self.sleep();
        let origin = origin();
        let budget = wide().with_origin_sat(20);
        let mut first = self.purchase(&origin, 10);
        first.max_fee_msat = 5 * SAT;
        assert_eq!(self.begin_with(&first, &budget).await, Begun::Started);
        let second = self.purchase(&origin, 5);
        let over = self.begin_with(&second, &budget).await;
        assert_eq!(
            over,
            Begun::OverBudget(Limit::Origin),
            "the highest fee of a pending payment is reserved"
        );
        self.settle(&first, Some(preimage()), SAT).await;
        let spent = self.spent(&origin).await;
        assert_eq!(
            [spent.origin_msat, spent.hour_msat, spent.day_msat],
            [11 * SAT; 3],
            "a settled payment counts its fee"
        );
        assert_eq!(
            self.begin_with(&second, &budget).await,
            Begun::Started,
            "what the fee was lower by is free"
        );
        self.settle(&second, Some(preimage()), 9 * SAT).await;
        assert_eq!(self.spent(&origin).await.origin_msat, 25 * SAT, "a fee beyond the highest counts too");
        let over = self.begin_with(&self.purchase(&origin, 0), &budget).await;
        assert_eq!(over, Begun::OverBudget(Limit::Origin), "and nothing more is allowed then");
    }

    pub(super) async fn hour_and_day_move_on(&mut self) {
        self.sleep();
        let origin = origin();
        self.begin(&self.purchase(&origin, 10)).await;
        let begun_at = self.now;
        for (later, hour, day) in
            [(0, 11, 11), (HOUR - 1, 11, 11), (HOUR, 0, 11), (DAY - 1, 0, 11), (DAY, 0, 0), (DAY + 1, 0, 0)]
        {
            self.now = begun_at + later;
            let spent = self.spent(&origin).await;
            assert_eq!(
                [spent.hour_msat, spent.day_msat],
                [hour * SAT, day * SAT],
                "after {later} s: hour and day are the last 3,600 s and 86,400 s"
            );
            assert_eq!(spent.origin_msat, 11 * SAT, "what an origin was paid stays");
        }
        for (limit, budget, seconds) in
            [(Limit::Hour, wide().with_hour_sat(20), HOUR), (Limit::Day, wide().with_day_sat(20), DAY)]
        {
            self.sleep();
            self.begin(&self.purchase(&origin, 10)).await;
            self.now += seconds - 1;
            let next = self.purchase(&origin, 10);
            assert_eq!(self.begin_with(&next, &budget).await, Begun::OverBudget(limit));
            self.now += 1;
            let next = self.purchase(&origin, 10);
            assert_eq!(self.begin_with(&next, &budget).await, Begun::Started, "time frees hour and day");
        }
    }

    pub(super) async fn what_was_begun_later_than_now_counts(&mut self) {
        self.sleep();
        self.sleep();
        self.begin(&self.purchase(&origin(), 10)).await;
        self.now -= 2 * DAY;
        let spent = self.spent("").await;
        assert_eq!(
            [spent.hour_msat, spent.day_msat],
            [11 * SAT; 2],
            "a clock that goes back frees nothing of what was spent since"
        );
        self.now += 2 * DAY;
    }

    pub(super) async fn nothing_is_overspent_at_once(&mut self) {
        for limit in [Limit::Origin, Limit::Hour, Limit::Day, Limit::Total] {
            self.sleep();
            let origin = origin();
            let mut top_up = self.purchase(&origin, 0);
            top_up.max_fee_msat = SAT - self.spent(&origin).await.total_msat % SAT;
            self.begin(&top_up).await;
            self.sleep();
            let total = self.spent(&origin).await.total_msat / SAT;
            let fresh = super::origin();
            let budget = match limit {
                Limit::Origin => wide().with_origin_sat(110),
                Limit::Hour => wide().with_hour_sat(110),
                Limit::Day => wide().with_day_sat(110),
                _ => wide().with_total_sat(total + 110),
            };
            let mut tasks = JoinSet::new();
            for _ in 0..200 {
                let (store, now) = (self.store.clone(), self.now);
                let purchase = self.purchase(&fresh, 10);
                tasks
                    .spawn(async move { store.begin(&purchase, &budget, now).await.expect("begin answers") });
            }
            let begun = tasks.join_all().await;
            let started = begun.iter().filter(|begun| **begun == Begun::Started).count();
            assert_eq!(started, 10, "200 payments at once, a budget for 10: {limit:?}");
            let over = begun.iter().filter(|begun| **begun == Begun::OverBudget(limit)).count();
            assert_eq!(over, 190, "the others are told the limit: {limit:?}");
            assert_eq!(self.spent(&fresh).await.origin_msat, 110 * SAT);
            assert_eq!(self.open(&fresh).await.len(), 10, "what is refused is not written");
        }
    }

    pub(super) async fn huge_numbers_do_not_wrap(&mut self) {
        self.sleep();
        let (origin, most) = (origin(), wide());
        for (amount_msat, max_fee_msat) in
            [(u64::MAX, 0), (0, u64::MAX), (u64::MAX, u64::MAX), (1 << 63, 1 << 63)]
        {
            let mut huge = self.purchase(&origin, 0);
            (huge.amount_msat, huge.max_fee_msat) = (amount_msat, max_fee_msat);
            let over = self.begin_with(&huge, &most).await;
            assert_eq!(over, Begun::OverBudget(Limit::Request), "a sum that is no number is over any budget");
        }
        let mut forever = self.purchase(&origin, 0);
        (forever.pay_by, forever.valid_until) = (u64::MAX, Some(u64::MAX));
        self.begin(&forever).await;
        assert!(self.kept(&forever).await.is_some(), "what never expires is kept");
    }
}
