//! What a gate asks of a request: how many units, or nothing at all.

use std::fmt;
use std::sync::Arc;

use http::request::Parts;

use crate::offer::Offer;
use crate::panics::unless_panics;
use crate::pricer::PriceError;

/// How many units a request takes.
#[derive(Clone)]
pub(crate) enum Cost {
    Fixed(u64),
    Computed(Arc<dyn Fn(&Parts) -> u64 + Send + Sync>),
}

impl Cost {
    /// # Errors
    /// The closure panics.
    pub(crate) fn units(&self, head: &Parts) -> Result<u64, PriceError> {
        match self {
            Self::Fixed(units) => Ok(*units),
            Self::Computed(units) => unless_panics(|| units(head))
                .ok_or_else(|| PriceError::failed("closure of the cost panicked")),
        }
    }
}

impl fmt::Debug for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(units) => units.fmt(f),
            Self::Computed(_) => f.write_str("by the request"),
        }
    }
}

/// Which requests pass free.
#[derive(Clone)]
pub(crate) struct FreeIf(pub(crate) Arc<dyn Fn(&Parts) -> bool + Send + Sync>);

impl FreeIf {
    pub(crate) fn holds(&self, head: &Parts) -> bool {
        unless_panics(|| self.0(head)).unwrap_or(false)
    }
}

impl fmt::Debug for FreeIf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("by the request")
    }
}

/// Whether what an offer sells is enough for these requirements.
pub(crate) fn opens(offer: &Offer, min_tier: u8, capability: Option<&str>, units: u64) -> bool {
    offer.tier >= min_tier
        && offer.access.max_uses().is_none_or(|sold| sold >= units)
        && capability.is_none_or(|needed| offer.capabilities.iter().any(|name| name == needed))
}

/// Every capability that an offer sells or a gate requires, once.
pub(crate) fn known_capabilities(offers: &[Arc<Offer>], required: Option<&String>) -> Vec<String> {
    let sold = offers.iter().flat_map(|offer| offer.capabilities.iter());
    let mut known: Vec<_> = sold.chain(required).cloned().collect();
    known.sort_unstable();
    known.dedup();
    known
}
