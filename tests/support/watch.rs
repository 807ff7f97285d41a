//! A shop whose every event is written down, a line each.

#![allow(dead_code, unreachable_pub, missing_docs)]

use std::sync::{Arc, Mutex};

use l402::{
    DevBackend, Event, FixedClock, Issuer, IssuerBuilder, KeyRing, Ledger, MemoryLedger, Network,
    PaymentBackend, RootKey,
};

use crate::svc::{NOW, Shop};

#[derive(Clone, Default)]
pub struct Told(Arc<Mutex<Vec<String>>>);

impl Told {
    pub fn hook(&self) -> impl Fn(&Event<'_>) + Send + Sync + 'static {
        let told = self.clone();
        move |event| told.0.lock().unwrap().push(line(event))
    }

    /// What was told since this was asked last.
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }

    /// The same, without the calls of backend and ledger.
    pub fn take_decisions(&self) -> Vec<String> {
        let is_call = |line: &String| line.starts_with("backend ") || line.starts_with("ledger ");
        self.take().into_iter().filter(|line| !is_call(line)).collect()
    }
}

fn line(event: &Event<'_>) -> String {
    match event {
        Event::Challenge { service, offer, amount_msat, is_repeated, .. } => {
            format!("challenge {service} {offer} {amount_msat}{}", if *is_repeated { " again" } else { "" })
        }
        Event::Admission { service, offer, basis, units, remaining, worth_msat, .. } => {
            let offer = offer.unwrap_or("-");
            format!("admission {service} {offer} {} {units} {remaining:?} {worth_msat:?}", basis.code())
        }
        Event::Refusal { service, refusal, cause, .. } => {
            format!("refusal {service} {}{}", refusal.code(), if cause.is_some() { " because" } else { "" })
        }
        Event::DryRun { service, refusal, cause, .. } => {
            format!("dry run {service} {}{}", refusal.code(), if cause.is_some() { " because" } else { "" })
        }
        Event::Settlement { service, units, charged, .. } => {
            format!("settlement {service} {units} {}", if *charged { "charged" } else { "given back" })
        }
        Event::LookUp { state, .. } => format!("look-up {state:?}"),
        Event::BackendCall { call, outcome, latency, error, .. } => {
            assert_eq!(error.is_some(), !["ok", "given_up"].contains(outcome));
            format!("backend {call} {outcome} {}", latency.as_secs())
        }
        Event::LedgerCall { call, outcome, latency, error, .. } => {
            assert_eq!(error.is_some(), *outcome == "error");
            format!("ledger {call} {outcome} {}", latency.as_secs())
        }
        Event::PoolLevel { service, offer, ready, change, .. } => {
            format!("pool {service} {offer} {ready} {change:+}")
        }
        Event::LimitHit { service, limit, .. } => format!("limit {service} {limit}"),
        other => panic!("an event that the tests do not know: {other:?}"),
    }
}

/// A shop with a hook that writes down, on the wallet and the ledger given.
pub fn shop_with(
    told: &Told,
    ledger: impl Ledger + 'static,
    backend: impl FnOnce(DevBackend) -> Arc<dyn PaymentBackend>,
    configure: impl FnOnce(IssuerBuilder) -> IssuerBuilder,
) -> Shop {
    let clock = FixedClock::at(NOW);
    let wallet = DevBackend::with_clock(clock.clone());
    let ledger: Arc<dyn Ledger> = Arc::new(ledger);
    let builder = Issuer::builder(KeyRing::new(RootKey::new([7; 32]).unwrap()), backend(wallet.clone()))
        .with_network(Network::Regtest)
        .with_ledger(ledger.clone())
        .with_clock(clock.clone())
        .on_event(told.hook());
    Shop { issuer: configure(builder).build().unwrap(), clock, wallet, ledger }
}

pub fn shop(told: &Told) -> Shop {
    shop_with(told, MemoryLedger::new(), |wallet| Arc::new(wallet), |builder| builder)
}
