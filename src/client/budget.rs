//! How much may be spent. What counts against it stands in the token store,
//! which reserves a payment and checks the budget in one step.

/// What a [`Payer`](super::Payer) may spend, in msat, fees included. Every
/// limit holds at once, and none can be lifted: there is no unlimited budget.
///
/// A payment counts with its amount and the highest fee from before it is sent
/// until it is settled, then with what it cost. Hour and day are the last 3,600
/// and 86,400 seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
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
