//! What was paid, for what and when.

use crate::preimage::PaymentHash;

use super::store::{Purchase, PurchaseState};

/// A payment that was made. [`Payer::receipts`](super::Payer::receipts) has them
/// all, and [`Payer::on_receipt`](super::Payer::on_receipt) is told of each.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Receipt {
    /// When it was paid, in unix seconds.
    pub paid_at: u64,
    /// To whom: scheme, host and port, as in `https://api.example`.
    pub origin: String,
    /// The path of the request that it was paid for, without its query.
    pub path: String,
    /// What the token opens, as far as it tells: its caveats but for times, one
    /// a line; or `path=` and the path, and a hash of the query.
    pub scope: String,
    /// What was paid, in msat.
    pub amount_msat: u64,
    /// What it cost beside that, in msat.
    pub fee_msat: u64,
    /// The hash that names the payment, in the wallet too.
    pub payment_hash: PaymentHash,
}

impl Receipt {
    /// What it cost in all, in msat.
    pub fn cost_msat(&self) -> u64 {
        self.amount_msat.saturating_add(self.fee_msat)
    }

    /// The receipt of a purchase; `None` where it was not paid yet.
    pub fn of(purchase: &Purchase) -> Option<Self> {
        match purchase.state {
            PurchaseState::Pending => None,
            PurchaseState::Held { fee_msat, paid_at, .. } | PurchaseState::Gone { fee_msat, paid_at } => {
                Some(Self::paid(purchase, fee_msat, paid_at))
            }
        }
    }

    pub(super) fn paid(purchase: &Purchase, fee_msat: u64, paid_at: u64) -> Self {
        Self {
            paid_at,
            origin: purchase.origin.clone(),
            path: purchase.path.clone(),
            scope: purchase.scope.clone(),
            amount_msat: purchase.amount_msat,
            fee_msat,
            payment_hash: purchase.payment_hash,
        }
    }
}
