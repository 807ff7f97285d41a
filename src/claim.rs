//! The service names of an issuer's gates, and what is sold under each.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use crate::issuer::Issuer;
use crate::offer::Offer;

impl Issuer {
    /// Takes a service name for one gate builder and the gates made with it.
    pub(crate) fn claim(&self, name: &str) -> Option<Claim> {
        let mut names = self.0.names.lock().unwrap_or_else(PoisonError::into_inner);
        names.insert(name.to_owned()).then(|| Claim {
            issuer: self.clone(),
            name: name.to_owned(),
            offers: Mutex::default(),
        })
    }
}

/// A service name, taken until the last gate that has it is gone.
pub(crate) struct Claim {
    issuer: Issuer,
    name: String,
    /// What the gates of the service sell: an id names one offer among them.
    offers: Mutex<Vec<Arc<Offer>>>,
}

impl Claim {
    /// Whether the service may sell this offer: no other one has its id.
    pub(crate) fn sells(&self, offer: &Arc<Offer>) -> bool {
        let mut offers = self.offers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(other) = offers.iter().find(|other| other.id == offer.id) {
            return other.has_terms_of(offer);
        }
        offers.push(offer.clone());
        true
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.issuer.0.names.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.name);
    }
}

impl fmt::Debug for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name.fmt(f)
    }
}
