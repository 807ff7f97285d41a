//! The ways to pay that a 402 lists, as links for a person.

use super::config::LIGHTNING;
use super::counter::Counter;
use super::listing::{Inline, ListedMethod, Listing};

/// A way to pay for an offer: a page on which a person pays.
#[derive(Debug)]
pub(crate) struct PayLink {
    pub(crate) offer: String,
    /// The name of the method, for people.
    pub(crate) label: String,
    /// A payment request by `GET`, which leads on.
    pub(crate) url: String,
    /// Whether what is paid is the user's, whoever has the token.
    pub(crate) is_for_user: bool,
}

impl Listing {
    /// Every way to pay but Lightning.
    pub(crate) fn links(&self, counter: &Counter) -> Vec<PayLink> {
        let mut links = Vec::new();
        for offer in &self.offers {
            for method in &offer.payment_methods {
                let (name, url) = match method {
                    ListedMethod::Name(name) if name == LIGHTNING => continue,
                    ListedMethod::Name(name) => (name, self.link(&offer.id, name)),
                    ListedMethod::Inline { payment_details: Inline::Invoice { .. }, .. } => continue,
                    ListedMethod::Inline {
                        payment_details: Inline::Link { payment_link, provider, .. },
                        ..
                    } => (provider, Some(payment_link.clone())),
                };
                if let (Some(method), Some(url)) = (counter.method(name), url) {
                    let label = method.payment_type().to_owned();
                    let is_for_user = self.is_for_user;
                    links.push(PayLink { offer: offer.id.clone(), label, url, is_for_user });
                }
            }
        }
        links
    }

    fn link(&self, offer: &str, method: &str) -> Option<String> {
        let (url, token) = (self.payment_request_url.as_ref()?, self.payment_context_token.as_ref()?);
        // Names, and base64url: nothing that a query would have to escape.
        Some(format!("{url}?offer_id={offer}&payment_method={method}&payment_context_token={token}"))
    }
}
