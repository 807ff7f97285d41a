//! What gates do, as metrics of the `metrics` facade (feature `metrics`).
//!
//! Install a recorder, and they are there; [`describe`] tells it what each one
//! is. `examples/observability.rs` serves them to Prometheus, and has a
//! dashboard for Grafana beside it.
//!
//! | name | kind | unit | labels | counts |
//! |---|---|---|---|---|
//! | `l402_challenges_total` | counter | | `service`, `offer` | refusals that carried an invoice |
//! | `l402_billed_msat_total` | counter | msat | `service`, `offer` | what these invoices were for, each once; most are never paid |
//! | `l402_admissions_total` | counter | | `service`, `offer`, `basis` | requests that were admitted |
//! | `l402_admitted_msat_total` | counter | msat | `service`, `offer` | what admitted requests used up of what was paid for their tokens |
//! | `l402_refusals_total` | counter | | `service`, `code` | requests that were answered in place of the inner service |
//! | `l402_dry_run_refusals_total` | counter | | `service`, `code` | requests admitted in dry run alone |
//! | `l402_settlements_total` | counter | | `service`, `outcome` | counted uses that ended `charged` or `given_back` |
//! | `l402_payments_total` | counter | | `method`, `outcome` | payments that webhooks told of, each as often as it was told |
//! | `l402_limit_hits_total` | counter | | `service`, `limit` | refusals because of a limit |
//! | `l402_pool_invoices` | gauge | | `service`, `offer` | invoices that gates keep ready |
//! | `l402_look_ups_total` | counter | | `state` | what the backend said of invoices: `open`, `settled`, `closed`, `unknown` |
//! | `l402_backend_seconds` | histogram | seconds | `call`, `outcome` | calls of the backend |
//! | `l402_ledger_seconds` | histogram | seconds | `call`, `outcome` | ledger operations |
//!
//! # Labels
//!
//! Their values are names that the operator chose and the fixed ones of
//! [`Event`]: `code` is that of [`Refusal::code`](crate::Refusal::code) and
//! `basis` that of [`Basis::code`](crate::Basis::code). No client can make a
//! new one. `offer` is empty for what was admitted without a token.
//!
//! # Money
//!
//! Which invoices are paid, the gate does not learn before a token is
//! presented, and then not for how many uses to come. So neither amount is what
//! was earned: the node's books say that. `l402_billed_msat_total` is what was
//! asked for. `l402_admitted_msat_total` is what was used up, for counted tokens
//! alone: a tenth of the price for one of ten uses. It leaves out passes, which are
//! not sold by the request, prices in other currencies, and tokens that another
//! service sold; takes an offer of fixed price at what it costs now; rounds
//! each request down to the msat; and keeps what was given back
//! ([`Event::Admission`] has the details).

use ::metrics::{
    Label, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};

use crate::event::Event;

/// A metric: what the table above says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// What it counts.
    pub help: &'static str,
}

/// What a [`Metric`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// A count, or a sum of msat, that only grows.
    Counter,
    /// A number that grows and shrinks.
    Gauge,
    /// The distribution of a time in seconds.
    Histogram,
}

const fn counted(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Metric {
    Metric { name, kind: Kind::Counter, labels, help }
}

const fn timed(name: &'static str, help: &'static str) -> Metric {
    Metric { name, kind: Kind::Histogram, labels: &["call", "outcome"], help }
}

/// Refusals that carried an invoice.
pub const CHALLENGES: Metric =
    counted("l402_challenges_total", &["service", "offer"], "Refusals that carried an invoice");
/// What their invoices were for, in msat.
pub const BILLED_MSAT: Metric =
    counted("l402_billed_msat_total", &["service", "offer"], "Amount of all invoices in msat, paid or not");
/// Requests that were admitted.
pub const ADMISSIONS: Metric =
    counted("l402_admissions_total", &["service", "offer", "basis"], "Requests that were admitted");
/// What admitted requests used up of what was paid for their tokens, in msat.
pub const ADMITTED_MSAT: Metric = counted(
    "l402_admitted_msat_total",
    &["service", "offer"],
    "Price of the units taken in msat, without passes",
);
/// Requests that were answered in place of the inner service.
pub const REFUSALS: Metric =
    counted("l402_refusals_total", &["service", "code"], "Requests that were refused");
/// Requests admitted in dry run alone.
pub const DRY_RUN_REFUSALS: Metric =
    counted("l402_dry_run_refusals_total", &["service", "code"], "Requests admitted in dry run alone");
/// Counted uses that ended.
pub const SETTLEMENTS: Metric =
    counted("l402_settlements_total", &["service", "outcome"], "Counted uses, charged or given back");
/// Payments that webhooks told of.
pub const PAYMENTS: Metric =
    counted("l402_payments_total", &["method", "outcome"], "Payments that webhooks told of");
/// Refusals because of a limit.
pub const LIMIT_HITS: Metric =
    counted("l402_limit_hits_total", &["service", "limit"], "Refusals because of a limit");
/// Invoices that gates keep ready.
pub const POOL_INVOICES: Metric = Metric {
    name: "l402_pool_invoices",
    kind: Kind::Gauge,
    labels: &["service", "offer"],
    help: "Invoices that gates keep ready",
};
/// What the backend said of invoices.
pub const LOOK_UPS: Metric = counted("l402_look_ups_total", &["state"], "What the backend said of invoices");
/// Calls of the backend.
pub const BACKEND_SECONDS: Metric = timed("l402_backend_seconds", "Calls of the payment backend");
/// Ledger operations.
pub const LEDGER_SECONDS: Metric = timed("l402_ledger_seconds", "Ledger operations");

/// All of them, in the order of the table.
pub const ALL: [Metric; 13] = [
    CHALLENGES,
    BILLED_MSAT,
    ADMISSIONS,
    ADMITTED_MSAT,
    REFUSALS,
    DRY_RUN_REFUSALS,
    SETTLEMENTS,
    PAYMENTS,
    LIMIT_HITS,
    POOL_INVOICES,
    LOOK_UPS,
    BACKEND_SECONDS,
    LEDGER_SECONDS,
];

/// Describes all metrics to the recorder that is installed.
pub fn describe() {
    for Metric { name, kind, help, .. } in ALL {
        match kind {
            Kind::Counter => describe_counter!(name, help),
            Kind::Gauge => describe_gauge!(name, help),
            Kind::Histogram => describe_histogram!(name, Unit::Seconds, help),
        }
    }
}

pub(crate) fn count(event: &Event<'_>) {
    match *event {
        Event::Challenge { service, offer, amount_msat, is_repeated, .. } => {
            add(CHALLENGES, [service, offer], 1);
            if !is_repeated {
                add(BILLED_MSAT, [service, offer], amount_msat);
            }
        }
        Event::Admission { service, offer, basis, worth_msat, .. } => {
            let offer = offer.unwrap_or_default();
            add(ADMISSIONS, [service, offer, basis.code()], 1);
            if let Some(msat) = worth_msat {
                add(ADMITTED_MSAT, [service, offer], msat);
            }
        }
        Event::Refusal { service, refusal, .. } => add(REFUSALS, [service, refusal.code()], 1),
        Event::DryRun { service, refusal, .. } => add(DRY_RUN_REFUSALS, [service, refusal.code()], 1),
        Event::Settlement { service, charged, .. } => {
            add(SETTLEMENTS, [service, if charged { "charged" } else { "given_back" }], 1);
        }
        #[cfg(feature = "offers")]
        Event::Payment { method, outcome, .. } => add(PAYMENTS, [method, outcome.code()], 1),
        Event::LookUp { state, .. } => add(LOOK_UPS, [state.code()], 1),
        Event::BackendCall { call, outcome, latency, .. } => {
            histogram!(BACKEND_SECONDS.name, "call" => call, "outcome" => outcome).record(latency);
        }
        Event::LedgerCall { call, outcome, latency, .. } => {
            histogram!(LEDGER_SECONDS.name, "call" => call, "outcome" => outcome).record(latency);
        }
        Event::LimitHit { service, limit } => add(LIMIT_HITS, [service, limit], 1),
        Event::PoolLevel { service, offer, change, .. } => {
            #[expect(clippy::cast_precision_loss, reason = "at most the size of a pool")]
            gauge!(POOL_INVOICES.name, labels(POOL_INVOICES, [service, offer])).increment(change as f64);
        }
    }
}

fn add<const N: usize>(metric: Metric, values: [&str; N], n: u64) {
    counter!(metric.name, labels(metric, values)).increment(n);
}

fn labels<const N: usize>(metric: Metric, values: [&str; N]) -> Vec<Label> {
    metric.labels.iter().zip(values).map(|(name, value)| Label::new(*name, value.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_what_there_is() {
        let rows = include_str!("metrics.rs").lines().filter_map(|line| line.strip_prefix("//! | `l402_"));
        let names: Vec<_> = rows
            .map(|row| {
                let cells: Vec<_> = row.split('|').map(str::trim).collect();
                let labels: Vec<_> = cells[3].split(", ").map(|label| label.trim_matches('`')).collect();
                (format!("l402_{}", cells[0].trim_matches('`')), cells[1].to_owned(), labels)
            })
            .collect();
        let expected = ALL.map(|Metric { name, kind, labels, .. }| {
            (name.to_owned(), format!("{kind:?}").to_lowercase(), labels.to_vec())
        });
        assert_eq!(names, expected);
    }
}
