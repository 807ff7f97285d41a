//! What is looked at before anything is paid. Pure: no wallet and no store is
//! asked.

use crate::bolt11;
use crate::preimage::PaymentHash;

use super::budget::Limit;
use super::challenges::Challenge;
use super::error::{Error, ErrorKind};
use super::origin::Origin;
use super::payer::Policy;

/// An invoice with less than this left is not paid, in seconds.
pub(super) const MIN_LEFT: u64 = 10;
/// For how long an unpaid purchase is remembered at most, in seconds, whatever
/// its invoice says.
const MAX_LEFT: u64 = 24 * 60 * 60;

/// A challenge that may be paid.
#[derive(Debug)]
pub(super) struct Payable {
    pub(super) payment_hash: PaymentHash,
    pub(super) amount_msat: u64,
    pub(super) max_fee_msat: u64,
    /// Unix seconds.
    pub(super) pay_by: u64,
}

/// Whether this origin is paid at all.
pub(super) fn origin(policy: &Policy, origin: &Origin) -> Result<(), Error> {
    if !origin.is_private() {
        let what =
            format!("{origin} is not paid over plain http, where anybody can take the token: use https");
        return Err(Error::new(ErrorKind::PlainHttp, what));
    }
    if !policy.origins.is_empty() && !policy.origins.contains(origin) {
        let what = format!("{origin} asks for a payment and is not among the origins that are paid");
        return Err(Error::new(ErrorKind::OriginNotAllowed, what));
    }
    Ok(())
}

/// Whether this challenge may be paid now, in unix seconds, for at most this
/// much, in msat with the fee.
pub(super) fn challenge(
    policy: &Policy,
    challenge: &Challenge,
    limit_msat: u64,
    now: u64,
) -> Result<Payable, Error> {
    let error = |kind, what: &'static str| Err(Error::new(kind, what));
    let Some(invoice) = bolt11::read(&challenge.invoice) else {
        return error(ErrorKind::Invoice, "the server's invoice cannot be read: nothing is paid");
    };
    if !invoice.is_of(policy.wallet.network()) {
        let network = policy.wallet.network();
        let what = format!("the server's invoice is not of the network of the wallet, {network}");
        return Err(Error::new(ErrorKind::Network, what));
    }
    if challenge.token.payment_hash.is_some_and(|of_token| of_token != invoice.payment_hash) {
        return error(ErrorKind::PaymentHash, "the server's invoice does not pay for its token");
    }
    let Some(amount_msat) = invoice.amount_msat.filter(|amount| *amount > 0) else {
        return error(ErrorKind::NoAmount, "the server's invoice has no amount: nothing is paid");
    };
    let max_fee_msat = match limit_msat.checked_sub(amount_msat) {
        // A wallet that limits its fees finds a way for what is left, or pays nothing.
        Some(left) if policy.wallet.limits_fees() => usual_fee(amount_msat).min(left),
        Some(left) if usual_fee(amount_msat) <= left => usual_fee(amount_msat),
        _ => return Err(over_budget(Limit::Request, amount_msat, limit_msat)),
    };
    check_time(invoice.expires_at(), now)?;
    let pay_by = invoice.expires_at().min(now.saturating_add(MAX_LEFT));
    Ok(Payable { payment_hash: invoice.payment_hash, amount_msat, max_fee_msat, pay_by })
}

/// Whether an invoice can be paid until then, in unix seconds.
pub(super) fn check_time(expires_at: u64, now: u64) -> Result<(), Error> {
    if expires_at < now.saturating_add(MIN_LEFT) {
        let what = format!("the server's invoice has expired, or does within {MIN_LEFT} s: ask again");
        return Err(Error::new(ErrorKind::Expired, what));
    }
    Ok(())
}

/// What a payment may cost beside its amount, in msat: 5 sat and 1 %. Routes of
/// small payments cost their base fees.
fn usual_fee(amount_msat: u64) -> u64 {
    amount_msat.div_ceil(100).saturating_add(5_000)
}

pub(super) fn over_budget(limit: Limit, amount_msat: u64, limit_msat: u64) -> Error {
    let which = match limit {
        Limit::Request => format!("the limit of one request, {limit_msat} msat"),
        Limit::Origin => "the budget of its origin".to_owned(),
        Limit::Hour => "the budget of this hour".to_owned(),
        Limit::Day => "the budget of this day".to_owned(),
        Limit::Total => "the budget in all".to_owned(),
    };
    let what = format!("{amount_msat} msat and the fee go beyond {which}");
    Error::new(ErrorKind::OverBudget(limit), what)
}
