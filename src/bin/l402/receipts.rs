//! `l402 receipts`: what was paid, and what may have been.

use l402::client::{Purchase, PurchaseState, Receipt, TokenStore as _};
use lexopt::prelude::*;
use serde_json::{Value as Json, json};

use crate::exit::Failure;
use crate::{places, show, time};

pub(crate) async fn run(parser: &mut lexopt::Parser) -> Result<u8, Failure> {
    let (mut since, mut is_json) = (0, false);
    while let Some(argument) = parser.next()? {
        match argument {
            Long("since") => since = time::since(&parser.value()?.string()?, time::now())?,
            Long("json") => is_json = true,
            Long("config") => drop(parser.value()?),
            other => return Err(other.unexpected().into()),
        }
    }
    let purchases = places::store().await?.all().await?;
    let receipts: Vec<_> =
        purchases.iter().filter_map(Receipt::of).filter(|receipt| receipt.paid_at >= since).collect();
    let total = receipts.iter().fold(0, |sum: u64, receipt| sum.saturating_add(receipt.cost_msat()));
    // However old: it is reserved still.
    let is_pending = |purchase: &&Purchase| matches!(purchase.state, PurchaseState::Pending);
    let pending: Vec<_> = purchases.iter().filter(is_pending).collect();
    if is_json {
        let receipts: Vec<Json> = receipts.iter().map(show::receipt).collect();
        let pending: Vec<Json> = pending.into_iter().map(show::pending).collect();
        show::line(json!({ "receipts": receipts, "total_msat": total, "pending": pending }))?;
        return Ok(0);
    }
    for purchase in &pending {
        show::line(format!(
            "{}  {} + {} fee at most  {}  {}  pending: the next request there looks it up",
            time::date(purchase.begun_at),
            show::sat(purchase.amount_msat),
            show::sat(purchase.max_fee_msat),
            show::plain(&format!("{}{}", purchase.origin, purchase.path)),
            show::scope(&purchase.scope),
        ))?;
    }
    for receipt in &receipts {
        show::line(format!(
            "{}  {} + {} fee  {}  {}",
            time::date(receipt.paid_at),
            show::sat(receipt.amount_msat),
            show::sat(receipt.fee_msat),
            show::plain(&format!("{}{}", receipt.origin, receipt.path)),
            show::scope(&receipt.scope),
        ))?;
    }
    show::line(format!("{} in {} payments", show::sat(total), receipts.len()))?;
    Ok(0)
}
