//! How much may be spent. What counts against it stands in the token store,
//! which reserves a payment and checks the budget in one step.

use super::store::Spent;

/// All the bitcoin that there ever is, in msat: no payment, limit or sum of
/// payments that is one is larger.
pub(super) const ALL_BITCOIN_MSAT: u64 = 21_000_000 * 100_000_000 * 1_000;

/// What a [`Payer`](super::Payer) may spend, in msat, fees included. Every
/// limit holds at once, and none can be lifted: there is no unlimited budget.
///
/// A payment counts with its amount and the highest fee from before it is sent
/// until it is settled, then with what it cost. Hour and day are the last 3,600
/// and 86,400 seconds, by when a payment was begun, however late it ends; one that
/// the wallet never heard of, and that is paid later, is begun anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
#[expect(clippy::struct_field_names, reason = "the unit of each")]
pub struct Budget {
    pub(crate) request_msat: u64,
    pub(crate) origin_msat: u64,
    pub(crate) hour_msat: u64,
    pub(crate) day_msat: u64,
    pub(crate) total_msat: u64,
}

/// Small change: 100 sat a request, 1,000 sat an hour, 5,000 sat a day, 5,000
/// sat to one origin and 20,000 sat in all.
impl Default for Budget {
    fn default() -> Self {
        Self {
            request_msat: 100_000,
            origin_msat: 5_000_000,
            hour_msat: 1_000_000,
            day_msat: 5_000_000,
            total_msat: 20_000_000,
        }
    }
}

impl Budget {
    /// For what was paid already.
    pub(super) fn of_all_bitcoin() -> Self {
        let most = ALL_BITCOIN_MSAT;
        Self { request_msat: most, origin_msat: most, hour_msat: most, day_msat: most, total_msat: most }
    }

    /// The most that one request may cost, in sat.
    pub fn with_request_sat(mut self, sat: u64) -> Self {
        self.request_msat = sat.saturating_mul(1_000);
        self
    }

    /// The most that one origin is ever paid, in sat.
    pub fn with_origin_sat(mut self, sat: u64) -> Self {
        self.origin_msat = sat.saturating_mul(1_000);
        self
    }

    /// The most in any hour, in sat.
    pub fn with_hour_sat(mut self, sat: u64) -> Self {
        self.hour_msat = sat.saturating_mul(1_000);
        self
    }

    /// The most in any day, in sat.
    pub fn with_day_sat(mut self, sat: u64) -> Self {
        self.day_msat = sat.saturating_mul(1_000);
        self
    }

    /// The most in all, for as long as the token store lives, in sat.
    pub fn with_total_sat(mut self, sat: u64) -> Self {
        self.total_msat = sat.saturating_mul(1_000);
        self
    }

    /// Every limit, in msat.
    pub fn limits(&self) -> [(Limit, u64); 5] {
        [
            (Limit::Request, self.request_msat),
            (Limit::Origin, self.origin_msat),
            (Limit::Hour, self.hour_msat),
            (Limit::Day, self.day_msat),
            (Limit::Total, self.total_msat),
        ]
    }

    /// The most that a payment may cost now, in msat and with its fee.
    pub(super) fn room(&self, spent: &Spent) -> u64 {
        let left = [
            self.request_msat,
            self.origin_msat.saturating_sub(spent.origin_msat),
            self.hour_msat.saturating_sub(spent.hour_msat),
            self.day_msat.saturating_sub(spent.day_msat),
            self.total_msat.saturating_sub(spent.total_msat),
        ];
        left.into_iter().fold(ALL_BITCOIN_MSAT, u64::min)
    }

    /// Whether a payment that costs this at most, in msat and with its fee, may
    /// be added to what was spent: the rule that every
    /// [`TokenStore`](super::TokenStore) goes by. A sum that is no number goes
    /// beyond any limit.
    ///
    /// # Errors
    /// The first limit that it would go beyond.
    pub fn allows(&self, spent: &Spent, cost_msat: u64) -> Result<(), Limit> {
        let sums = [
            (0, self.request_msat, Limit::Request),
            (spent.origin_msat, self.origin_msat, Limit::Origin),
            (spent.hour_msat, self.hour_msat, Limit::Hour),
            (spent.day_msat, self.day_msat, Limit::Day),
            (spent.total_msat, self.total_msat, Limit::Total),
        ];
        for (sum_msat, limit_msat, limit) in sums {
            let most = limit_msat.min(ALL_BITCOIN_MSAT);
            if sum_msat.checked_add(cost_msat).is_none_or(|sum_msat| sum_msat > most) {
                return Err(limit);
            }
        }
        Ok(())
    }
}

/// The limit of a [`Budget`] that a payment would go beyond.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Limit {
    /// Of one request.
    Request,
    /// Of one origin.
    Origin,
    /// Of the last hour.
    Hour,
    /// Of the last day.
    Day,
    /// Of everything.
    Total,
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAT: u64 = 1_000;

    fn spent(msat: [u64; 4]) -> Spent {
        let [origin_msat, hour_msat, day_msat, total_msat] = msat;
        Spent { origin_msat, hour_msat, day_msat, total_msat }
    }

    #[test]
    fn each_limit_is_reached_and_not_passed() {
        let budget = Budget::default()
            .with_request_sat(10)
            .with_origin_sat(20)
            .with_hour_sat(30)
            .with_day_sat(40)
            .with_total_sat(50);
        let full = [10, 20, 30, 40].map(|sat| sat * SAT);
        assert_eq!(budget.allows(&spent(full), 10 * SAT), Ok(()));
        assert_eq!(budget.allows(&Spent::default(), 10 * SAT + 1), Err(Limit::Request));
        for (at, limit) in [Limit::Origin, Limit::Hour, Limit::Day, Limit::Total].into_iter().enumerate() {
            let mut one_more = full;
            one_more[at] += 1;
            assert_eq!(budget.allows(&spent(one_more), 10 * SAT), Err(limit));
        }
    }

    #[test]
    fn no_budget_allows_what_is_no_number() {
        let budget = Budget::default()
            .with_request_sat(u64::MAX)
            .with_origin_sat(u64::MAX)
            .with_hour_sat(u64::MAX)
            .with_day_sat(u64::MAX)
            .with_total_sat(u64::MAX);
        assert_eq!(budget.allows(&Spent::default(), ALL_BITCOIN_MSAT), Ok(()));
        for (spent_msat, cost, limit) in [
            (0, u64::MAX, Limit::Request),
            (0, ALL_BITCOIN_MSAT + 1, Limit::Request),
            (1, ALL_BITCOIN_MSAT, Limit::Total),
            (u64::MAX, 1, Limit::Total),
        ] {
            assert_eq!(budget.allows(&spent([0, 0, 0, spent_msat]), cost), Err(limit));
        }
    }

    #[test]
    fn a_limit_of_nothing_allows_nothing() {
        assert_eq!(Budget::default().with_total_sat(0).allows(&Spent::default(), 1), Err(Limit::Total));
    }
}
