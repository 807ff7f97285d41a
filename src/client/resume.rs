//! What became of the payments that were begun before, by this process or by
//! another one that has the same store and wallet.

use std::time::Duration;

use tokio::time::timeout;

use super::budget::Limit;
use super::check::{self, MIN_LEFT};
use super::error::{Error, ErrorKind};
use super::payer::{Payer, in_time};
use super::purchase::{PAY_TIME_LIMIT, SLACK, Wanted};
use super::store::{Begun, Purchase, PurchaseState};
use super::wallet::PaymentStatus;
use crate::preimage::PaymentHash;

/// Longest look-up of a payment.
const STATUS_TIME_LIMIT: Duration = Duration::from_secs(30);
/// How long after its invoice has expired a payment that the wallet does not
/// know counts as never made, in seconds.
const GRACE: u64 = 60;

impl Payer {
    /// Looks up what became of the payments that were begun at this origin. Gives
    /// the one to be paid again: of a scope that is asked for, and unknown to
    /// the wallet.
    ///
    /// Of one that was begun lately neither is the end: whoever began it may not
    /// have reached the wallet yet, and one that tries several ways calls it
    /// failed between two of them.
    pub(super) async fn resume(&self, wanted: &Wanted) -> Result<Option<Purchase>, Error> {
        let mut again = None;
        for purchase in in_time(self.store.of_origin(wanted.origin.as_str())).await? {
            if !matches!(purchase.state, PurchaseState::Pending) {
                continue;
            }
            let hash = purchase.payment_hash;
            match self.status(hash).await? {
                PaymentStatus::Paid(payment) => {
                    self.settle(&purchase, payment).await?;
                }
                PaymentStatus::PaidNoPreimage => return Err(self.settle_without(&purchase).await),
                PaymentStatus::InFlight => return Err(Error::in_flight(hash)),
                PaymentStatus::Failed => {
                    self.check_ended(&purchase)?;
                    in_time(self.store.fail(hash)).await?;
                }
                PaymentStatus::Unknown if self.now() >= purchase.pay_by.saturating_add(GRACE) => {
                    in_time(self.store.fail(hash)).await?;
                }
                PaymentStatus::Unknown if wanted.scopes().any(|scope| scope == purchase.scope) => {
                    self.check_ended(&purchase)?;
                    if self.now().saturating_add(MIN_LEFT) > purchase.pay_by {
                        return Err(Error::in_flight(hash));
                    }
                    let limit_msat = self.limit_of(wanted);
                    if purchase.cost_msat() > limit_msat {
                        return Err(check::over_budget(Limit::Request, purchase.amount_msat, limit_msat));
                    }
                    again = again.or(Some(purchase));
                }
                // Another token's, whose request may come again.
                PaymentStatus::Unknown => {}
            }
        }
        Ok(again)
    }

    /// Whether nobody pays this purchase any more, by the time that is gone.
    fn check_ended(&self, purchase: &Purchase) -> Result<(), Error> {
        let ends_at = purchase.begun_at.saturating_add((PAY_TIME_LIMIT + SLACK).as_secs());
        let left = ends_at.saturating_sub(self.now());
        if left == 0 {
            return Ok(());
        }
        let what = format!(
            "payment {}, begun a moment ago, may still be made: nothing new is paid before that is known; \
             ask again in {left} s",
            purchase.payment_hash
        );
        Err(Error::new(ErrorKind::InFlight, what))
    }

    pub(super) async fn status(&self, payment_hash: PaymentHash) -> Result<PaymentStatus, Error> {
        let error = || {
            let what =
                format!("the wallet does not say what became of payment {payment_hash}: nothing new is paid");
            Error::new(ErrorKind::Wallet, what)
        };
        match timeout(STATUS_TIME_LIMIT, self.policy.wallet.status(payment_hash)).await {
            Ok(status) => status.map_err(|cause| error().with_source(cause)),
            Err(_) => Err(error().with_source("it did not answer in time")),
        }
    }

    /// A purchase that is paid again, begun now: so others see that somebody is at
    /// it, and it counts in this hour.
    pub(super) async fn renew(&self, mut purchase: Purchase, wanted: &Wanted) -> Result<Purchase, Error> {
        let now = self.now();
        purchase.begun_at = now;
        in_time(self.store.fail(purchase.payment_hash)).await?;
        match in_time(self.store.begin(&purchase, &self.policy.budget, now)).await? {
            Begun::Started => Ok(purchase),
            Begun::Exists => Err(Error::in_flight(purchase.payment_hash)),
            Begun::OverBudget(limit) => {
                Err(check::over_budget(limit, purchase.amount_msat, self.limit_of(wanted)))
            }
        }
    }
}
