//! Events as lines of a log. `event.rs` has the table.

use std::collections::HashMap;
use std::error::Error as StdError;
use std::fmt::Write as _;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::event::Event;
use crate::refusal::Refusal;

/// How long lines that say the same stay at level debug after the first one.
const QUIET_FOR: Duration = Duration::from_secs(10);
/// Longest text of an error and its sources, in bytes.
const MAX_CAUSE: usize = 1024;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// Writes a line at a level that is known when it is written.
macro_rules! line {
    ($level:expr, $message:literal, $($fields:tt)+) => {
        match $level {
            Level::Error => tracing::error!(target: "l402", $($fields)+, $message),
            Level::Warn => tracing::warn!(target: "l402", $($fields)+, $message),
            Level::Info => tracing::info!(target: "l402", $($fields)+, $message),
            Level::Debug => tracing::debug!(target: "l402", $($fields)+, $message),
            Level::Trace => tracing::trace!(target: "l402", $($fields)+, $message),
        }
    };
}

pub(crate) fn write(event: &Event<'_>) {
    match *event {
        Event::Challenge { service, offer, amount_msat, payment_hash, is_repeated } => {
            line!(Level::Debug, "challenge", service, offer, amount_msat, %payment_hash, is_repeated);
        }
        Event::Admission { service, offer, basis, units, remaining, worth_msat } => {
            line!(
                Level::Debug,
                "admitted",
                service,
                offer,
                basis = basis.code(),
                units,
                remaining,
                worth_msat
            );
        }
        Event::Refusal { service, refusal, cause } => {
            let (code, cause) = (refusal.code(), cause.map(|cause| text_of(cause)));
            let (level, more) = paced(level(refusal), ["refused", code], service);
            line!(level, "refused", service, code, cause, more);
        }
        Event::DryRun { service, refusal, cause } => {
            let (code, cause) = (refusal.code(), cause.map(|cause| text_of(cause)));
            let (level, more) = paced(level(refusal), ["would have refused", code], service);
            line!(level, "would have refused", service, code, cause, more);
        }
        Event::Settlement { service, units, charged } => {
            line!(Level::Debug, "settled", service, units, charged);
        }
        #[cfg(feature = "offers")]
        Event::Payment { method, payment, service, offer, outcome } => {
            let level = if outcome.is_amiss() { Level::Warn } else { Level::Info };
            line!(level, "payment", method, payment, service, offer, outcome = outcome.code());
        }
        Event::LookUp { payment_hash, state } => {
            line!(Level::Debug, "looked up", %payment_hash, state = state.code());
        }
        Event::BackendCall { call, outcome, latency, error } => {
            let (latency_us, cause) = (micros(latency), error.map(|error| text_of(error)));
            // That a backend has no health check is no outage.
            let failed = error.is_some() && outcome != "unsupported";
            let (level, more) = paced(level_of_call(failed), [call, outcome], "");
            line!(level, "backend call", call, outcome, latency_us, cause, more);
        }
        Event::LedgerCall { call, outcome, latency, error } => {
            let (latency_us, cause) = (micros(latency), error.map(|error| text_of(error)));
            let (level, more) = paced(level_of_call(error.is_some()), [call, outcome], "");
            line!(level, "ledger call", call, outcome, latency_us, cause, more);
        }
        Event::PoolLevel { service, offer, ready, .. } => {
            line!(Level::Trace, "pool level", service, offer, ready);
        }
        Event::LimitHit { service, limit } => {
            let (level, more) = paced(Level::Info, ["limit hit", limit], service);
            line!(level, "limit hit", service, limit, more);
        }
    }
}

/// A handler asks for what no gate gives it.
#[cfg(feature = "axum")]
pub(crate) fn without_gate(error: &(dyn StdError + 'static)) {
    let cause = text_of(error);
    let (level, more) = paced(Level::Error, ["handler without a gate", ""], "");
    line!(level, "handler without a gate", cause, more);
}

fn level(refusal: &Refusal) -> Level {
    match refusal {
        Refusal::PriceFailed | Refusal::NestedGate | Refusal::Misconfigured => Level::Error,
        Refusal::BackendUnavailable { .. } | Refusal::LedgerUnavailable | Refusal::PriceUnavailable => {
            Level::Warn
        }
        _ => Level::Debug,
    }
}

fn level_of_call(failed: bool) -> Level {
    if failed { Level::Warn } else { Level::Trace }
}

fn micros(latency: Duration) -> u64 {
    u64::try_from(latency.as_micros()).unwrap_or(u64::MAX)
}

/// An error and its sources, in one line.
fn text_of(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        if text.len() > MAX_CAUSE {
            break;
        }
        let _ = write!(text, ": {error}");
        source = error.source();
    }
    let end = (0..=MAX_CAUSE.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    text.truncate(end.unwrap_or_default());
    text
}

/// When a line stood at its level last, and how many went to debug since.
struct Paced {
    at: Instant,
    more: u64,
}

/// As many as there are kinds of lines, times the services of the process.
type Lines = HashMap<[&'static str; 2], HashMap<Box<str>, Paced>>;

static LINES: LazyLock<Mutex<Lines>> = LazyLock::new(Mutex::default);

/// The level at which a line is written now, and how many like it went to
/// debug since the last one that did not.
fn paced(level: Level, kind: [&'static str; 2], service: &str) -> (Level, Option<u64>) {
    if matches!(level, Level::Debug | Level::Trace) {
        return (level, None);
    }
    let now = Instant::now();
    let mut lines = LINES.lock().unwrap_or_else(PoisonError::into_inner);
    let services = lines.entry(kind).or_default();
    let Some(last) = services.get_mut(service) else {
        services.insert(service.into(), Paced { at: now, more: 0 });
        return (level, Some(0));
    };
    if now.saturating_duration_since(last.at) < QUIET_FOR {
        last.more += 1;
        return (Level::Debug, None);
    }
    last.at = now;
    (level, Some(std::mem::take(&mut last.more)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn of_lines_that_say_the_same_one_in_ten_seconds_keeps_its_level() {
        let ask = |kind, service| {
            let (level, more) = paced(Level::Error, kind, service);
            (level == Level::Error, more)
        };
        let kind = ["a test", "code"];
        assert_eq!(ask(kind, "a"), (true, Some(0)));
        for _ in 0..1_000 {
            assert_eq!(ask(kind, "a"), (false, None));
        }
        assert_eq!(ask(kind, "b"), (true, Some(0)), "another service");
        assert_eq!(ask(["a test", "other"], "a"), (true, Some(0)), "another code");
        tokio::time::advance(QUIET_FOR).await;
        assert_eq!(ask(kind, "a"), (true, Some(1_000)));
        assert_eq!(ask(kind, "a"), (false, None));
    }

    #[test]
    fn the_text_of_an_error_has_its_sources_and_is_bounded() {
        #[derive(Debug, thiserror::Error)]
        #[error("outer")]
        struct Outer(#[source] Box<dyn StdError + Send + Sync>);

        assert_eq!(text_of(&Outer("inner".into())), "outer: inner");
        let long = Outer("ä".repeat(10 * MAX_CAUSE).into());
        let text = text_of(&Outer(Box::new(long)));
        assert!(text.starts_with("outer: outer: ä"));
        assert!((MAX_CAUSE - 1..=MAX_CAUSE).contains(&text.len()));
    }
}
