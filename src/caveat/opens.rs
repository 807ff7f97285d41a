//! What a token opens, whichever gate it is for.

use super::{Caveat, CaveatRegistry, HANDLE, SERVICES, Suffix, digits, services, split_once};
use http::request::Parts;

use crate::macaroon::Verified;

/// What the server minted into a token.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Opens<'m> {
    /// Each service with the unix second until which it is open.
    pub(crate) services: Vec<(&'m str, u64)>,
    /// By what the backend finds its invoice.
    pub(crate) handle: Option<&'m str>,
    /// Whether it is for what one request names: it is bound to something that
    /// this one does not have, or was sold at a price by the request.
    pub(crate) is_particular: bool,
}

/// Reads what the server minted, and nothing that a holder added.
pub(crate) fn opens<'m>(token: &Verified<'m>, registry: &CaveatRegistry, head: &Parts) -> Opens<'m> {
    let mut opens = Opens::default();
    let here = registry.bind_to(head).unwrap_or_default();
    let minted = token.caveats().filter(|(_, minted)| *minted);
    for caveat in minted.filter_map(|(bytes, _)| Caveat::parse(std::str::from_utf8(bytes).ok()?)) {
        match caveat.condition {
            SERVICES => opens.services = services::names(caveat.value).map(|name| (name, 0)).collect(),
            HANDLE => opens.handle = Some(caveat.value),
            condition if registry.binds(condition) => {
                opens.is_particular |=
                    !here.iter().any(|bound| bound.is(condition) && bound.has(caveat.value));
            }
            condition => {
                let Some((service, suffix)) = split_once(condition, b'_') else { continue };
                match Suffix::parse(suffix) {
                    Some(Suffix::ValidUntil) => {
                        let mut of_service = opens.services.iter_mut().filter(|(name, _)| *name == service);
                        if let Some((_, until)) = of_service.next() {
                            *until = digits(caveat.value).unwrap_or_default();
                        }
                    }
                    Some(Suffix::MaxPrice) => opens.is_particular = true,
                    _ => {}
                }
            }
        }
    }
    opens
}
