//! What gates do, told as it happens: to a hook of the operator's, to the log
//! and to the metrics.
//!
//! [`IssuerBuilder::on_event`](crate::IssuerBuilder::on_event) takes the hook.
//! The features `tracing` and `metrics` need no more than a subscriber and a
//! recorder; `l402::metrics` has the names. No event holds a token, a preimage,
//! an invoice's text or anything else that a client or a node keeps secret.
//!
//! # The log
//!
//! With the feature `tracing` every event is a line of the target `l402`:
//!
//! | message | level | fields |
//! |---|---|---|
//! | `challenge` | debug | `service`, `offer`, `amount_msat`, `payment_hash`, `is_repeated` |
//! | `admitted` | debug | `service`, `offer`, `basis`, `units`, `remaining`, `worth_msat` |
//! | `refused` | error, warn or debug | `service`, `code`, `cause`, `more` |
//! | `would have refused` | error, warn or debug | `service`, `code`, `cause`, `more` |
//! | `settled` | debug | `service`, `units`, `charged` |
//! | `payment` | warn where money came in and nothing is credited, else info | `method`, `payment`, `service`, `offer`, `outcome` |
//! | `looked up` | debug | `payment_hash`, `state` |
//! | `backend call` | warn where it gave an error, else trace | `call`, `outcome`, `latency_us`, `cause`, `more` |
//! | `ledger call` | warn where it gave an error, else trace | `call`, `outcome`, `latency_us`, `cause`, `more` |
//! | `limit hit` | info | `service`, `limit`, `more` |
//! | `pool level` | trace | `service`, `offer`, `ready` |
//! | `dry run` | warn, once per gate | `service` |
//! | `handler without a gate` | error | `cause`, `more` |
//! | what the crate otherwise says on standard error | warn, once per issuer | |
//!
//! Where nobody has subscribed by then, the last three stand on standard error,
//! the handler without a gate once.
//!
//! A refusal of class 500, where the server is built wrong, is an error; one
//! because backend, ledger or price source is out is a warning; and all others,
//! which clients cause as they like, are for debugging. What waits runs within a
//! span `l402` of level debug, with the fields `service` and `step`: `decide`
//! while pricer, backend or ledger are asked, `sell` while an invoice is made.
//!
//! Nobody can flood the log above level debug: of the lines with the same
//! message, service and code (or call and outcome, or limit), one in 10 seconds
//! stands there, and those between go to debug. `more` says how many those were.
//!
//! `cause` is the text of the error and its sources, at most 1,024 bytes. Those of
//! this crate's backends and ledgers hold no secret; see that yours hold none.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use crate::answer::Cause;
use crate::backend::{BackendError, InvoiceState};
use crate::grant::Basis;
use crate::ledger::LedgerError;
use crate::preimage::PaymentHash;
use crate::refusal::Refusal;

/// Something that happened. A request that reaches a gate ends in one
/// [`Admission`](Self::Admission) or one [`Refusal`](Self::Refusal), unless its
/// client leaves before; gates within one another tell of it each.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A request was refused with something to pay: a [`Refusal`](Self::Refusal)
    /// says why. Most are never paid.
    #[non_exhaustive]
    Challenge {
        /// The service name of the gate.
        service: &'a str,
        /// The id of the offer that the invoice buys.
        offer: &'a str,
        /// What the invoice is for, in msat.
        amount_msat: u64,
        /// The payment hash of the invoice.
        payment_hash: PaymentHash,
        /// Whether the same client was handed the same challenge before
        /// ([`reuse_challenge`](crate::IssuerBuilder::reuse_challenge)).
        is_repeated: bool,
    },
    /// A request was admitted, and goes to the inner service.
    #[non_exhaustive]
    Admission {
        /// The service name of the gate.
        service: &'a str,
        /// The id of the offer that the token was bought as; `None` without one.
        offer: Option<&'a str>,
        /// Why it was admitted.
        basis: Basis,
        /// How many units this gate took for it; 0 where nothing is counted.
        units: u64,
        /// How many units are left; `None` where nothing is counted.
        remaining: Option<u64>,
        /// The part of its token's price that this request used up, in msat,
        /// rounded down: price times units taken, divided by units sold. `None`
        /// where that is not known: for a pass, which is not sold by the
        /// request, for a price in another currency, and for a token that
        /// another service sold. An offer of fixed price counts at what it costs
        /// now, whatever the token was sold at. A use that is
        /// [given back](Self::Settlement) is counted all the same.
        worth_msat: Option<u64>,
    },
    /// A request was answered in place of the inner service.
    #[non_exhaustive]
    Refusal {
        /// The service name of the gate.
        service: &'a str,
        /// Why.
        refusal: &'a Refusal,
        /// The error behind a refusal of class 5xx.
        cause: Option<&'a Cause>,
    },
    /// A request was admitted only because the gate is in
    /// [dry run](crate::GateBuilder::dangerous_dry_run). An
    /// [`Admission`](Self::Admission) follows.
    #[non_exhaustive]
    DryRun {
        /// The service name of the gate.
        service: &'a str,
        /// Why it would have been refused.
        refusal: &'a Refusal,
        /// The error behind a refusal of class 5xx.
        cause: Option<&'a Cause>,
    },
    /// A counted use of an admitted request came to its end.
    #[non_exhaustive]
    Settlement {
        /// The service name of the gate.
        service: &'a str,
        /// How many units it holds.
        units: u64,
        /// Whether it is charged; otherwise it is given back, where the ledger
        /// still [allows it](crate::ledger::release_cap).
        charged: bool,
    },
    /// The backend said what became of an invoice.
    #[non_exhaustive]
    LookUp {
        /// The payment hash of the invoice.
        payment_hash: PaymentHash,
        /// What became of it.
        state: InvoiceState,
    },
    /// A call of the backend ended.
    #[non_exhaustive]
    BackendCall {
        /// `create_invoice`, `look_up` or `check_health`.
        call: &'static str,
        /// `ok`; what kind of error it was: `connect`, `timeout`, `auth`,
        /// `rate_limited`, `rejected`, `unsupported`, `invalid_response`,
        /// `backend`; or `given_up` where the time limit was over, the backend
        /// panicked or the client left.
        outcome: &'static str,
        /// How long it took.
        latency: Duration,
        /// The error.
        error: Option<&'a BackendError>,
    },
    /// A ledger operation ended.
    #[non_exhaustive]
    LedgerCall {
        /// The name of the method: `reserve`, `commit`, `release`, `credit`,
        /// `account`, `revoke` or `open_reservations`.
        call: &'static str,
        /// `ok`, `error`, or `given_up` where the operation panicked, outlasted
        /// its lease, or ended with the process.
        outcome: &'static str,
        /// How long it took.
        latency: Duration,
        /// The error.
        error: Option<&'a LedgerError>,
    },
    /// A request was refused, or would have been, because of a limit.
    #[non_exhaustive]
    LimitHit {
        /// The service name of the gate.
        service: &'a str,
        /// `challenges` (of a client, or of the server), `in_flight`
        /// (invoices made, prices asked for or payments looked up at once) or `pass_rate`.
        limit: &'static str,
    },
    /// A webhook told of a payment at a checkout. A webhook that is sent again is
    /// told again.
    #[cfg(feature = "offers")]
    #[cfg_attr(docsrs, doc(cfg(feature = "offers")))]
    #[non_exhaustive]
    Payment {
        /// The name of the payment method.
        method: &'a str,
        /// The provider's id of the payment.
        payment: &'a str,
        /// The name of the service that is sold; `None` where the order is not
        /// this server's.
        service: Option<&'a str>,
        /// The id of the offer that is sold.
        offer: Option<&'a str>,
        /// What became of it.
        outcome: PaymentOutcome,
    },
    /// The number of invoices that a gate keeps
    /// [ready](crate::GateBuilder::with_invoice_pool) changed. One that has grown
    /// too old is counted until the next challenge throws it away.
    #[non_exhaustive]
    PoolLevel {
        /// The service name of the gate.
        service: &'a str,
        /// The id of the offer that they are for.
        offer: &'a str,
        /// How many are ready in this gate.
        ready: usize,
        /// How many more than before.
        change: i64,
    },
}

/// What became of a payment, as [`Event::Payment`] tells it.
#[cfg(feature = "offers")]
#[cfg_attr(docsrs, doc(cfg(feature = "offers")))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PaymentOutcome {
    /// It settled, and its order is credited.
    Settled,
    /// It was begun.
    Pending,
    /// It failed.
    Failed,
    /// Less was paid than the order is for: **nothing is credited**, and the money
    /// has to be given back by hand.
    Underpaid,
    /// As `Underpaid`, in another currency.
    WrongCurrency,
    /// It settled when what it buys has expired: **nothing is credited**, and the
    /// money has to be given back by hand.
    TooLate,
    /// It was given back, and what it bought is revoked.
    Refunded,
    /// It is disputed, and what it bought is revoked.
    Disputed,
    /// It settled, and its account is revoked, by a refund or dispute of this
    /// payment or another: **nothing is admitted**, and unless this one was given
    /// back already it has to be, by hand.
    Revoked,
    /// Its order is of a key that this server does not hold: another server's, or
    /// one from before a restart with a ledger in memory. Nothing is credited.
    UnknownOrder,
}

#[cfg(feature = "offers")]
impl PaymentOutcome {
    /// A stable name, for programs.
    pub fn code(self) -> &'static str {
        match self {
            Self::Settled => "settled",
            Self::Pending => "pending",
            Self::Failed => "failed",
            Self::Underpaid => "underpaid",
            Self::WrongCurrency => "wrong_currency",
            Self::TooLate => "too_late",
            Self::Refunded => "refunded",
            Self::Disputed => "disputed",
            Self::Revoked => "revoked",
            Self::UnknownOrder => "unknown_order",
        }
    }

    /// Whether money came in for which nobody gets anything.
    #[cfg(feature = "tracing")]
    pub(crate) fn is_amiss(self) -> bool {
        matches!(
            self,
            Self::Underpaid | Self::WrongCurrency | Self::TooLate | Self::Revoked | Self::UnknownOrder
        )
    }
}

type Hook = dyn Fn(&Event<'_>) + Send + Sync;

/// Whom events are told to.
#[derive(Clone, Default)]
pub(crate) struct Events {
    hook: Option<Arc<Hook>>,
}

impl Events {
    pub(crate) fn hooked(hook: impl Fn(&Event<'_>) + Send + Sync + 'static) -> Self {
        Self { hook: Some(Arc::new(hook)) }
    }

    /// Whether anybody may listen.
    #[inline]
    pub(crate) fn are_watched(&self) -> bool {
        cfg!(any(feature = "tracing", feature = "metrics")) || self.hook.is_some()
    }

    /// Tells of an event, which is made only if anybody may listen.
    #[inline]
    pub(crate) fn tell<'a>(&self, event: impl FnOnce() -> Event<'a>) {
        if self.are_watched() {
            self.spread(&event());
        }
    }

    /// Each listener by itself: a panic of one is nobody else's, neither of the
    /// request nor of what runs while another panic unwinds.
    fn spread(&self, event: &Event<'_>) {
        #[cfg(feature = "tracing")]
        let _ = catch_unwind(AssertUnwindSafe(|| crate::log::write(event)));
        #[cfg(feature = "metrics")]
        let _ = catch_unwind(AssertUnwindSafe(|| crate::metrics::count(event)));
        if let Some(hook) = &self.hook {
            let _ = catch_unwind(AssertUnwindSafe(|| hook(event)));
        }
    }

    pub(crate) fn refused(&self, service: &str, refusal: &Refusal, cause: Option<&Cause>) {
        self.limit_hit(service, refusal);
        self.tell(|| Event::Refusal { service, refusal, cause });
    }

    pub(crate) fn would_refuse(&self, service: &str, refusal: &Refusal, cause: Option<&Cause>) {
        self.limit_hit(service, refusal);
        self.tell(|| Event::DryRun { service, refusal, cause });
    }

    fn limit_hit(&self, service: &str, refusal: &Refusal) {
        if let Some(limit) = refusal.limit() {
            self.tell(|| Event::LimitHit { service, limit });
        }
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.hook.is_some() { "hooked" } else { "not hooked" })
    }
}

/// Runs a part of a request within its span.
#[cfg(feature = "tracing")]
pub(crate) fn in_span<F: Future>(
    step: &'static str,
    service: &str,
    part: F,
) -> impl Future<Output = F::Output> + use<F> {
    tracing::Instrument::instrument(part, tracing::debug_span!(target: "l402", "l402", service, step))
}

/// Runs a part of a request.
#[cfg(not(feature = "tracing"))]
pub(crate) fn in_span<F: Future>(_step: &'static str, _service: &str, part: F) -> F {
    part
}

/// A gate that gives everything away was built.
pub(crate) fn is_in_dry_run(service: &str) {
    #[cfg(feature = "tracing")]
    if crate::warn::has_log() {
        tracing::warn!(target: "l402", service, "dry run");
        return;
    }
    crate::warn::warn(format_args!("gate `{service}` is in dry run: it gives everything away"));
}
