//! Where what an issuer sells is paid for.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::context::Choices;
use super::{CheckoutConfig, PaymentMethod};
use crate::gate::{Gate, GateInner};
use crate::issuer::Issuer;
use crate::issuer_builder::IssuerBuilder;
use crate::offer::Offer;

/// The checkout of an issuer, in the hands of the issuer.
#[derive(Debug)]
pub(crate) struct Counter {
    pub(super) config: CheckoutConfig,
    pub(super) choices: Choices,
    /// The gates of each service. They own the issuer, so that it cannot own them.
    gates: Mutex<HashMap<Arc<str>, Vec<Weak<GateInner>>>>,
}

impl Counter {
    pub(crate) fn new(config: CheckoutConfig) -> Self {
        Self { config, choices: Choices::default(), gates: Mutex::default() }
    }

    pub(crate) fn add_gate(&self, gate: &Gate) {
        let mut gates = self.gates.lock().unwrap_or_else(PoisonError::into_inner);
        let of_service = gates.entry(gate.0.service.clone()).or_default();
        of_service.retain(|gate| gate.strong_count() > 0);
        of_service.push(Arc::downgrade(&gate.0));
    }

    /// The offer of this id that is for sale, and a gate that sells it.
    pub(super) fn find(&self, service: &str, offer: &str) -> Option<(Gate, Arc<Offer>)> {
        let gates = self.gates.lock().unwrap_or_else(PoisonError::into_inner);
        let mut gates = gates.get(service)?.iter().filter_map(Weak::upgrade);
        gates.find_map(|gate| {
            let offer = gate.offers.iter().find(|other| *other.id == *offer && other.is_for_sale)?.clone();
            Some((Gate(gate), offer))
        })
    }

    pub(super) fn method(&self, name: &str) -> Option<&dyn PaymentMethod> {
        self.config.methods.iter().find(|method| method.name() == name).map(|method| &**method)
    }
}

/// The checkout of an issuer: its routes, for any server. Cheap to clone.
///
/// The gates whose offers it sells have to be there as long as something can be
/// bought: in a process that mounts these routes and no gate, as a gateway on
/// another host, build the same gates and keep them.
///
/// ```
/// # #[cfg(all(feature = "dev", feature = "axum"))] {
/// use axum::{Router, routing::get};
/// use l402::checkout::CheckoutConfig;
/// use l402::{
///     Access, DAY, DevBackend, Gate, Issuer, KeyRing, L402Layer, MemoryLedger, Network, Offer, Price, RootKey,
/// };
///
/// let issuer = Issuer::builder(KeyRing::new(RootKey::generate()), DevBackend::new())
///     .with_network(Network::Regtest)
///     .with_ledger(MemoryLedger::new())
///     .with_checkout(CheckoutConfig::new("https://api.example.com/l402"))
///     .build()?;
/// let gate = Gate::builder(&issuer, "forecast", Offer::new(Price::sat(21), Access::once()).with_id("once"))
///     .add_offer(Offer::new(Price::sat(9_000), Access::pass(30 * DAY)).with_id("month"))
///     .build()?;
/// let checkout = issuer.checkout().expect("it was given one");
/// let app: Router = Router::new()
///     .route("/forecast", get(|| async { "sunny" }).route_layer(L402Layer::new(gate)))
///     .nest("/l402", checkout.router());
/// # }
/// # Ok::<(), l402::Error>(())
/// ```
#[derive(Clone)]
pub struct Checkout(pub(super) Issuer);

impl Checkout {
    pub(super) fn counter(&self) -> &Counter {
        self.0.0.checkout.as_ref().expect("a checkout is of an issuer that has one")
    }
}

impl fmt::Debug for Checkout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checkout").field("config", &self.counter().config).finish()
    }
}

/// # Checkout
impl IssuerBuilder {
    /// Sells by more than Lightning: every 402 of the issuer's gates lists their
    /// offers and the methods of payment, and [`Issuer::checkout`] has the routes
    /// by which they are paid. No checkout unless set.
    ///
    /// A token that is bought so is one of an account that the ledger says was paid
    /// for: it admits alone, as `Authorization: L402 <token>` or `Authorization:
    /// Bearer <token>`, and whoever has it can use it. Where the ledger dies with
    /// the process, such tokens end with it.
    #[cfg_attr(docsrs, doc(cfg(feature = "offers")))]
    pub fn with_checkout(mut self, config: CheckoutConfig) -> Self {
        self.checkout = Some(config);
        self
    }
}

impl Issuer {
    /// The checkout; `None` where the issuer was built without one.
    #[cfg_attr(docsrs, doc(cfg(feature = "offers")))]
    pub fn checkout(&self) -> Option<Checkout> {
        self.0.checkout.is_some().then(|| Checkout(self.clone()))
    }
}
