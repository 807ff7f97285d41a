//! How a token comes to be held, in the order of its steps.
//!
//! 1. The origin may be paid, and there is a challenge.
//! 2. Nobody else buys at this origin until this has ended; who waits too long
//!    for it gives up.
//! 3. Purchases that are pending there are looked up in the wallet: paid, they
//!    are settled; failed, they are removed; in flight, or begun so lately that
//!    somebody may still be at it, nothing new is paid.
//! 4. A held token of the scope that is asked for is used.
//! 5. A purchase that the wallet has never heard of is begun anew, and paid by
//!    its own invoice.
//! 6. The challenge is checked, shown, and written with its reservation.
//! 7. The wallet pays, and the preimage is compared with the payment hash.
//!
//! It runs in a task of its own: whoever asked may be gone, and what was begun
//! is brought to its end.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::OwnedMutexGuard;
use tokio::time::timeout;

use super::budget::Budget;
use super::challenges::Challenge;
use super::check::{self, Payable};
use super::error::{Error, ErrorKind};
use super::known::{Claim, Held};
use super::origin::Origin;
use super::payer::{Payer, in_time};
use super::quote::Quote;
use super::receipt::Receipt;
use super::store::{Begun, Purchase, PurchaseState};
use super::wallet::{PayErrorKind, Payment, PaymentRequest, PaymentStatus};
use crate::preimage::{PaymentHash, Preimage};

/// Longest payment, from when it is written, and how much longer the wallet may
/// take to say so.
pub(super) const PAY_TIME_LIMIT: Duration = Duration::from_secs(60);
pub(super) const SLACK: Duration = Duration::from_secs(15);
/// After how many held tokens were refused a request buys one for itself.
const MAX_REFUSED: usize = 16;

/// What a request asks for.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) origin: Origin,
    pub(super) path: String,
    /// The scope of a token that does not say what it opens.
    pub(super) place: String,
    pub(super) challenges: Vec<Challenge>,
    /// What it may cost, in msat with the fee, beside what the budget allows.
    pub(super) limit_msat: u64,
    /// The tokens that it was refused with, the latest last.
    pub(super) refused: Vec<Arc<Held>>,
    pub(super) body: Option<Bytes>,
}

/// A token for a request.
#[derive(Debug)]
pub(super) struct Obtained {
    pub(super) held: Arc<Held>,
    /// Of a token that is good for one request: nobody else takes it meanwhile.
    #[expect(dead_code, reason = "held until it is dropped")]
    pub(super) claim: Option<Claim>,
    /// Whether it was paid just now.
    pub(super) bought: Option<Bought>,
}

#[derive(Debug)]
pub(super) struct Bought {
    pub(super) receipt: Receipt,
    /// Nobody else buys at this origin before this is dropped, so that the first
    /// use is the buyer's. Of a token for one request it is anyway.
    pub(super) flight: Option<OwnedMutexGuard<()>>,
}

impl Payer {
    /// Finds or buys a token for a request.
    pub(super) async fn obtain(&self, wanted: Wanted) -> Result<Obtained, Error> {
        check::origin(&self.policy, &wanted.origin)?;
        if wanted.challenges.is_empty() {
            let what = "the server asks for a payment, without an L402 challenge that can be read";
            return Err(Error::new(ErrorKind::NoChallenge, what));
        }
        let payer = self.clone();
        let task = tokio::spawn(async move { payer.find_or_buy(wanted).await });
        task.await.unwrap_or_else(|_| {
            let what = "the wallet or the token store panicked: the payment may have been made";
            Err(Error::new(ErrorKind::Uncertain, what))
        })
    }

    async fn find_or_buy(&self, wanted: Wanted) -> Result<Obtained, Error> {
        let waits = PAY_TIME_LIMIT + SLACK;
        let flight = timeout(waits, self.known.flight(&wanted.origin)).await.map_err(|_| {
            let what = format!(
                "another request has been buying at {} for {} s, and nothing was paid for this one: ask again",
                wanted.origin,
                waits.as_secs()
            );
            Error::new(ErrorKind::InFlight, what)
        })?;
        let again = if self.policy.is_dry_run { None } else { self.resume(&wanted).await? };
        self.discard_refused(&wanted).await?;
        if let Some((held, claim)) = self.find(&wanted).await? {
            return Ok(Obtained { held, claim, bought: None });
        }
        let is_new = again.is_none();
        let purchase = match again {
            Some(purchase) => {
                self.show(Quote::of(&purchase, wanted.body.clone())).await?;
                self.renew(purchase, &wanted).await?
            }
            None => self.begin(&wanted).await?,
        };
        let (held, receipt) = self.pay(purchase, is_new).await?;
        let (claim, flight) = if held.is_single_use {
            (self.known.claim(held.payment_hash), None)
        } else {
            (None, Some(flight))
        };
        Ok(Obtained { held: Arc::new(held), claim, bought: Some(Bought { receipt, flight }) })
    }

    /// A token that was refused where the same scope is asked for again is used
    /// up, revoked or expired. Where another scope is asked for, it may still open
    /// what it was bought for.
    async fn discard_refused(&self, wanted: &Wanted) -> Result<(), Error> {
        let Some(held) = wanted.refused.last() else { return Ok(()) };
        if wanted.scopes().any(|scope| scope == held.scope) {
            self.known.forget(&wanted.origin, held);
            in_time(self.store.discard(held.payment_hash)).await?;
        }
        Ok(())
    }

    /// A held token of a scope that is asked for.
    async fn find(&self, wanted: &Wanted) -> Result<Option<(Arc<Held>, Option<Claim>)>, Error> {
        if wanted.refused.len() >= MAX_REFUSED {
            return Ok(None);
        }
        for purchase in in_time(self.store.of_origin(wanted.origin.as_str())).await? {
            let hash = purchase.payment_hash;
            let fits = wanted.scopes().any(|scope| scope == purchase.scope)
                && !wanted.refused.iter().any(|held| held.payment_hash == hash);
            let held = Held::of(&purchase).filter(|held| fits && held.is_valid(|| self.now()));
            let Some(held) = held.map(Arc::new) else { continue };
            if !held.is_single_use {
                self.known.learn(&wanted.origin, &wanted.path, &held);
                return Ok(Some((held, None)));
            }
            if let Some(claim) = self.known.claim(hash) {
                return Ok(Some((held, Some(claim))));
            }
        }
        Ok(None)
    }

    pub(super) fn limit_of(&self, wanted: &Wanted) -> u64 {
        self.policy.budget.request_msat.min(wanted.limit_msat)
    }

    /// Chooses the first challenge that may be paid, and writes the purchase.
    async fn begin(&self, wanted: &Wanted) -> Result<Purchase, Error> {
        let limit_msat = self.limit_of(wanted);
        let (mut chosen, mut refused, mut offered_msat) = (None, None, Vec::new());
        for challenge in &wanted.challenges {
            match check::challenge(&self.policy, challenge, limit_msat, self.now()) {
                Ok(payable) => {
                    offered_msat.push(payable.amount_msat);
                    chosen = chosen.or(Some((challenge, payable)));
                }
                Err(error) => refused = refused.or(Some(error)),
            }
        }
        let Some((challenge, payable)) = chosen else {
            return Err(refused.expect("there is a challenge, and it was not chosen"));
        };
        let quote = Quote {
            origin: wanted.origin.to_string(),
            path: wanted.path.clone(),
            services: challenge.token.services.clone(),
            amount_msat: payable.amount_msat,
            max_fee_msat: payable.max_fee_msat,
            offered_msat,
            body: wanted.body.clone(),
        };
        self.show(quote).await?;
        check::check_time(payable.pay_by, self.now())?;
        self.check_new(payable.payment_hash).await?;
        self.reserve(wanted, challenge, payable).await
    }

    /// Whether this is a payment that the wallet has not made, for whomever: it
    /// would give its preimage again, which is the proof of that payment.
    async fn check_new(&self, payment_hash: PaymentHash) -> Result<(), Error> {
        let unasked = |error| {
            let what = format!("the wallet cannot be asked of payment {payment_hash}, and nothing was paid");
            Error::new(ErrorKind::PaymentFailed, what).with_source(error)
        };
        match self.status(payment_hash).await.map_err(unasked)? {
            PaymentStatus::Unknown | PaymentStatus::Failed => Ok(()),
            PaymentStatus::InFlight | PaymentStatus::Paid(_) | PaymentStatus::PaidNoPreimage => {
                Err(Error::invoice_used())
            }
        }
    }

    async fn show(&self, quote: Quote) -> Result<(), Error> {
        if self.policy.is_dry_run {
            let what = format!("{} asks {} msat; a dry run pays nothing", quote.origin, quote.amount_msat);
            return Err(Error::new(ErrorKind::DryRun, what).with_quote(quote));
        }
        let Some(confirms) = self.policy.confirms.clone() else { return Ok(()) };
        let shown = quote.clone();
        let confirmed = tokio::task::spawn_blocking(move || confirms(&shown)).await;
        if confirmed.unwrap_or(false) {
            return Ok(());
        }
        let what = format!("the payment of {} msat to {} was not confirmed", quote.amount_msat, quote.origin);
        Err(Error::new(ErrorKind::NotConfirmed, what).with_quote(quote))
    }

    /// Writes the purchase, with its reservation.
    async fn reserve(
        &self,
        wanted: &Wanted,
        challenge: &Challenge,
        payable: Payable,
    ) -> Result<Purchase, Error> {
        let (now, origin) = (self.now(), wanted.origin.as_str());
        let token = &challenge.token;
        let mut purchase = Purchase::new(payable.payment_hash, origin, payable.amount_msat, now);
        purchase.path.clone_from(&wanted.path);
        purchase.scope = token.scope_at(&wanted.place);
        purchase.token.clone_from(&token.text);
        purchase.invoice.clone_from(&challenge.invoice);
        purchase.max_fee_msat = payable.max_fee_msat;
        purchase.pay_by = payable.pay_by;
        purchase.valid_until = token.valid_until;
        purchase.is_single_use = token.is_single_use;

        let budget = &self.policy.budget;
        let mut begun = in_time(self.store.begin(&purchase, budget, now)).await?;
        if let Begun::OverBudget(_) = begun {
            // The last payment of a budget may leave less for its fee.
            let spent = in_time(self.store.spent(origin, now)).await?;
            let room = budget.room(&spent).checked_sub(purchase.amount_msat);
            if let Some(fee_msat) = room.filter(|_| self.policy.wallet.limits_fees()) {
                purchase.max_fee_msat = purchase.max_fee_msat.min(fee_msat);
                begun = in_time(self.store.begin(&purchase, budget, now)).await?;
            }
        }
        match begun {
            Begun::Started => Ok(purchase),
            Begun::OverBudget(limit) => {
                Err(check::over_budget(limit, purchase.amount_msat, self.limit_of(wanted)))
            }
            Begun::Exists => Err(Error::invoice_used()),
        }
    }

    /// Pays a purchase that is written. Of one that is not new somebody else may
    /// still be at it, so that a failure here is not its end.
    async fn pay(&self, purchase: Purchase, is_new: bool) -> Result<(Held, Receipt), Error> {
        let hash = purchase.payment_hash;
        // No longer than the invoice is good, nor than others reckon with.
        let until = purchase.pay_by.min(purchase.begun_at.saturating_add(PAY_TIME_LIMIT.as_secs()));
        let time_limit = Duration::from_secs(until.saturating_sub(self.now()));
        let request = PaymentRequest::new(purchase.invoice.clone(), hash, purchase.amount_msat)
            .with_max_fee_msat(purchase.max_fee_msat)
            .with_time_limit(time_limit);
        let uncertain = || {
            let what = format!(
                "payment {hash} of {} msat may have been made: the next request to {} looks it up",
                purchase.amount_msat, purchase.origin
            );
            Error::new(ErrorKind::Uncertain, what)
        };
        match timeout(time_limit + SLACK, self.policy.wallet.pay(&request)).await {
            Err(_) => Err(uncertain().with_source("the wallet did not answer in time")),
            Ok(Ok(payment)) => self.settle(&purchase, payment).await,
            Ok(Err(error)) if is_new && error.is_definite() => {
                // Where that fails it stays reserved, until it is looked up.
                let _ = in_time(self.store.fail(hash)).await;
                let what = format!("payment {hash} failed, and nothing was paid");
                Err(Error::new(ErrorKind::PaymentFailed, what).with_source(error))
            }
            Ok(Err(error)) if error.kind() == PayErrorKind::NoPreimage => {
                Err(self.settle_without(&purchase).await.with_source(error))
            }
            Ok(Err(error)) => Err(uncertain().with_source(error)),
        }
    }

    /// A payment was made. The token is held though the store cannot write it:
    /// then the purchase is pending, and is settled when it is looked up.
    pub(super) async fn settle(
        &self,
        purchase: &Purchase,
        payment: Payment,
    ) -> Result<(Held, Receipt), Error> {
        let (hash, now) = (purchase.payment_hash, self.now());
        let Payment { preimage, fee_msat } = payment;
        let fits = preimage.payment_hash() == hash;
        let written = self.write_paid(purchase, fits.then(|| preimage.clone()), fee_msat, now).await;
        let receipt = Receipt::paid(purchase, fee_msat, now);
        self.tell(&receipt, written.is_ok());
        if !fits {
            let what = format!(
                "the wallet says that payment {hash} was made, and shows a preimage that is not its own: \
                 look it up in the wallet, and do not use that wallet"
            );
            return Err(Error::new(ErrorKind::Preimage, what).with_receipt(Some(receipt)));
        }
        let mut purchase = purchase.clone();
        purchase.state = PurchaseState::Held { preimage, fee_msat, paid_at: now };
        let held = Held::of(&purchase).ok_or_else(|| {
            let what = format!(
                "payment {hash} was made, and the token store shows a token for it that no header may hold: \
                 somebody else writes to the store"
            );
            Error::new(ErrorKind::Store, what).with_receipt(Some(receipt.clone()))
        })?;
        Ok((held, receipt))
    }

    /// A payment was made that gives no preimage, so its token is lost. It counts
    /// with its highest fee.
    pub(super) async fn settle_without(&self, purchase: &Purchase) -> Error {
        let (hash, now) = (purchase.payment_hash, self.now());
        let written = self.write_paid(purchase, None, purchase.max_fee_msat, now).await;
        let receipt = Receipt::paid(purchase, purchase.max_fee_msat, now);
        self.tell(&receipt, written.is_ok());
        let what = format!(
            "payment {hash} was made, and the wallet shows no preimage, without which its token opens nothing: \
             find the preimage in the wallet, or ask {} for the money back, and pay with another wallet",
            purchase.origin
        );
        Error::new(ErrorKind::NoPreimage, what).with_receipt(Some(receipt))
    }

    /// Writes that a payment was made. A purchase that somebody else has removed
    /// meanwhile is written anew, whatever the budget says: the money is spent.
    async fn write_paid(
        &self,
        purchase: &Purchase,
        preimage: Option<Preimage>,
        fee_msat: u64,
        now: u64,
    ) -> Result<(), Error> {
        let hash = purchase.payment_hash;
        let written = in_time(self.store.settle(hash, preimage.clone(), fee_msat, now)).await;
        if written.is_err()
            && in_time(self.store.begin(purchase, &Budget::of_all_bitcoin(), now)).await.is_ok()
        {
            return in_time(self.store.settle(hash, preimage, fee_msat, now)).await;
        }
        written
    }

    /// Tells of a payment once: one that is not written is settled again.
    fn tell(&self, receipt: &Receipt, is_written: bool) {
        if let Some(told) = self.policy.on_receipt.as_ref().filter(|_| is_written) {
            told(receipt);
        }
    }
}

impl Wanted {
    pub(super) fn scopes(&self) -> impl Iterator<Item = String> {
        self.challenges.iter().map(|challenge| challenge.token.scope_at(&self.place))
    }
}
