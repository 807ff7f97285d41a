//! What a token is restricted to.
//!
//! A caveat reads `condition=value`, split at the first `=`, with no spaces
//! trimmed. All caveats of a token have to be known and true, so that adding
//! one can only narrow what it opens.
//!
//! | condition | value | holds when |
//! |---|---|---|
//! | `services` | `name:tier,...` | the gate's service is in every list; a later list names no new service and no higher tier |
//! | `<service>_offer` | offer id | the gate has the offer; every one names the same |
//! | `<service>_capabilities` | `a,b` | the gate's capability is in every list; a later list is a subset |
//! | `<service>_valid_until` | unix seconds | it is earlier than every one |
//! | `<service>_max_uses` | count | fewer uses are spent |
//! | `<service>_max_price` | `<integer>msat`, `<integer>usd` | the request costs at most that, in that unit (of a currency the smallest, such as cents) |
//! | `<service>_rate` | `<n>/<seconds>` | a pass is used at most that often |
//! | `<service>_method` | `GET,HEAD` | the request's method is in every list |
//! | `invoice_handle` | free | always: by it the backend finds the invoice; a later one is the same |
//! | `preimage` | 64 hex digits | it is the preimage of the token's payment hash |
//! | registered | free | its closure says so: see [`CaveatRegistry`] |
//!
//! The first caveats, as many as the token id counts, are the server's. What a
//! token grants is read from them alone; those that a holder added can refuse
//! and nothing else. A condition of another service does not apply, if the
//! server itself put that service into the token.

mod capabilities;
mod expiry;
mod handle;
mod method;
mod offer;
#[cfg(feature = "page")]
mod opens;
mod preimage;
mod price;
mod rate;
mod registry;
mod services;
mod uses;

use std::fmt;
use std::time::SystemTime;

use http::request::Parts;

pub(crate) use capabilities::contains as has_capability;
pub(crate) use expiry::Expiry;
#[cfg(feature = "page")]
pub(crate) use opens::opens;
pub(crate) use registry::{Bound, is_minted};
pub use registry::{CaveatRegistry, Check};

use crate::clock::unix;
use crate::macaroon::Verified;
use crate::offer::{Offer, Rate};
use crate::price::Amount;
use crate::refusal::Refusal;

/// One caveat, split at the first `=`. Public as the shape that
/// [`CaveatRegistry`] hands to a closure.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Caveat<'a> {
    condition: &'a str,
    value: &'a str,
}

impl<'a> Caveat<'a> {
    /// Splits the text of a caveat; `None` where it has no `=`.
    pub fn parse(text: &'a str) -> Option<Self> {
        split_once(text, b'=').map(|(condition, value)| Self { condition, value })
    }

    /// What stands before the first `=`.
    pub fn condition(&self) -> &'a str {
        self.condition
    }

    /// What stands behind the first `=`.
    pub fn value(&self) -> &'a str {
        self.value
    }
}

/// Shows condition and value, but not the preimage of a `preimage=` caveat.
impl fmt::Debug for Caveat<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = if self.condition == PREIMAGE { "[redacted]" } else { self.value };
        f.debug_struct("Caveat").field("condition", &self.condition).field("value", &value).finish()
    }
}

/// The conditions that stand behind the name of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Suffix {
    Offer,
    Capabilities,
    ValidUntil,
    MaxUses,
    MaxPrice,
    Rate,
    Method,
}

const SUFFIXES: [(&str, Suffix); 7] = [
    ("offer", Suffix::Offer),
    ("capabilities", Suffix::Capabilities),
    ("valid_until", Suffix::ValidUntil),
    ("max_uses", Suffix::MaxUses),
    ("max_price", Suffix::MaxPrice),
    ("rate", Suffix::Rate),
    ("method", Suffix::Method),
];

impl Suffix {
    fn parse(text: &str) -> Option<Self> {
        SUFFIXES.iter().find(|(name, _)| *name == text).map(|(_, suffix)| *suffix)
    }
}

/// Conditions that stand alone.
const SERVICES: &str = "services";
const PREIMAGE: &str = "preimage";
const HANDLE: &str = "invoice_handle";

/// What a request is judged against.
#[derive(Debug)]
pub(crate) struct Scope<'a> {
    pub(crate) service: &'a str,
    pub(crate) registry: &'a CaveatRegistry,
    pub(crate) head: &'a Parts,
    pub(crate) now: SystemTime,
}

/// What the server minted into a token for one service, narrowed by what its
/// holder added.
#[derive(Debug)]
pub(crate) struct Claims<'m> {
    /// The effective tier: the lowest of all lists.
    pub(crate) tier: u8,
    /// The offer it was bought as.
    pub(crate) offer: &'m str,
    /// The last, narrowest list of capabilities.
    pub(crate) capabilities: &'m str,
    pub(crate) expiry: Expiry,
    /// How many uses were sold, and the fewest that any caveat leaves.
    pub(crate) uses: Option<Uses>,
    /// How often the token may be used.
    pub(crate) rate: Option<Rate>,
    /// The lowest price that any caveat allows.
    pub(crate) max_price: Option<Amount>,
    /// The price that the server bound the token to.
    pub(crate) sold_for: Option<Amount>,
    /// By what the backend finds its invoice.
    pub(crate) handle: Option<&'m str>,
}

/// Uses of a metered token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Uses {
    /// What was sold.
    pub(crate) sold: u64,
    /// What the holder left of it, for whoever got the token from them.
    pub(crate) ceiling: u64,
}

/// What the caveats have said so far.
#[derive(Default)]
struct Seen<'m> {
    services: Option<services::Lists<'m>>,
    offer: Option<&'m str>,
    capabilities: Option<&'m str>,
    expiry: Option<Expiry>,
    uses: Option<Uses>,
    rate: Option<Rate>,
    max_price: Option<Amount>,
    sold_for: Option<Amount>,
    handle: Option<&'m str>,
}

/// Checks every caveat, and reads what the server minted.
pub(crate) fn check<'m>(token: &Verified<'m>, scope: &Scope<'_>) -> Result<Claims<'m>, Refusal> {
    let mut seen = Seen::default();
    for (bytes, minted) in token.caveats() {
        let caveat = std::str::from_utf8(bytes).ok().and_then(Caveat::parse);
        let known = match caveat {
            Some(caveat) => apply(&mut seen, caveat, minted, token, scope)?,
            None => false,
        };
        if !known && !scope.registry.skips_unknown() {
            return Err(Refusal::UnknownCaveat);
        }
    }
    scope.registry.check_bound(token, scope)?;

    let services = seen.services.ok_or(Refusal::WrongService)?;
    Ok(Claims {
        tier: services.tier(),
        offer: seen.offer.ok_or(Refusal::WrongOffer)?,
        capabilities: seen.capabilities.unwrap_or_default(),
        expiry: seen.expiry.ok_or(Refusal::InvalidCaveat)?,
        uses: seen.uses,
        rate: seen.rate,
        max_price: seen.max_price,
        sold_for: seen.sold_for,
        handle: seen.handle,
    })
}

/// Applies one caveat; `false` where its condition is unknown.
fn apply<'m>(
    seen: &mut Seen<'m>,
    caveat: Caveat<'m>,
    minted: bool,
    token: &Verified<'m>,
    scope: &Scope<'_>,
) -> Result<bool, Refusal> {
    let value = caveat.value;
    match caveat.condition {
        SERVICES => services::apply(&mut seen.services, value, minted, scope.service)?,
        PREIMAGE => preimage::apply(value, token)?,
        HANDLE => handle::apply(&mut seen.handle, value, minted)?,
        condition => {
            if scope.registry.apply(caveat, token, scope)? {
                return Ok(true);
            }
            // Names have no underscore, so the first one ends the service.
            let Some((service, suffix)) = split_once(condition, b'_') else { return Ok(false) };
            let Some(suffix) = Suffix::parse(suffix) else { return Ok(false) };
            if service != scope.service {
                return Ok(seen.services.as_ref().is_some_and(|lists| lists.minted(service)));
            }
            match suffix {
                Suffix::Offer => offer::apply(&mut seen.offer, value, minted)?,
                Suffix::Capabilities => capabilities::apply(&mut seen.capabilities, value, minted)?,
                Suffix::ValidUntil => expiry::apply(&mut seen.expiry, value, minted, unix(scope.now))?,
                Suffix::MaxUses => uses::apply(&mut seen.uses, value, minted)?,
                Suffix::MaxPrice => {
                    let price = price::apply(&mut seen.max_price, value)?;
                    if minted {
                        seen.sold_for = Some(price);
                    }
                }
                Suffix::Rate => rate::apply(&mut seen.rate, value, minted)?,
                Suffix::Method => method::apply(value, &scope.head.method)?,
            }
        }
    }
    Ok(true)
}

/// `str::split_once` for an ASCII byte, several times as fast on a few bytes.
fn split_once(text: &str, at: u8) -> Option<(&str, &str)> {
    let found = text.bytes().position(|byte| byte == at)?;
    Some((&text[..found], &text[found + 1..]))
}

/// Whether a list has more entries than the one before it: it then names
/// something new, or something twice, and need not be compared entry by entry.
/// So no list of a holder's takes longer to compare than the server's own.
fn has_more_entries(list: &str, before: &str) -> bool {
    let commas = |list: &str| list.bytes().filter(|byte| *byte == b',').count();
    commas(list) > commas(before)
}

/// Reads plain decimal digits: no sign, space, exponent or overflow.
pub(crate) fn digits(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

/// The caveats of a token that is sold now, in the order in which they are
/// written: services first, for the others refer to them.
#[derive(Debug)]
pub(crate) struct Minted<'a> {
    pub(crate) service: &'a str,
    pub(crate) also_opens: &'a [String],
    pub(crate) tier: u8,
    pub(crate) offer: &'a str,
    pub(crate) capabilities: &'a [String],
    pub(crate) valid_until: u64,
    pub(crate) max_uses: Option<u64>,
    pub(crate) rate: Option<Rate>,
    pub(crate) max_price: Option<Amount>,
    pub(crate) bound: Vec<Bound>,
    pub(crate) handle: Option<String>,
}

impl<'a> Minted<'a> {
    /// What `service` mints when it sells `offer` at `price`, to be good until
    /// this unix second.
    pub(crate) fn new(
        service: &'a str,
        offer: &'a Offer,
        price: Amount,
        valid_until: u64,
        bound: Vec<Bound>,
    ) -> Self {
        Self {
            service,
            also_opens: &offer.also_opens,
            tier: offer.tier,
            offer: &offer.id,
            capabilities: &offer.capabilities,
            valid_until,
            max_uses: offer.access.max_uses(),
            rate: offer.access.max_rate(),
            max_price: offer.pricing.is_computed().then_some(price),
            bound,
            handle: None,
        }
    }

    pub(crate) fn caveats(&self) -> Vec<String> {
        let services = || std::iter::once(self.service).chain(self.also_opens.iter().map(String::as_str));
        let mut caveats = vec![format!("{SERVICES}={}", services::list(services(), self.tier))];
        for service in services() {
            caveats.push(format!("{service}_offer={}", offer::value(self.service, self.offer, service)));
            caveats.push(format!("{service}_capabilities={}", self.capabilities.join(",")));
            caveats.push(format!("{service}_valid_until={}", self.valid_until));
            caveats.extend(self.max_uses.map(|uses| format!("{service}_max_uses={uses}")));
            caveats.extend(self.rate.map(|rate| format!("{service}_rate={rate}")));
            caveats.extend(self.max_price.map(|price| format!("{service}_max_price={price}")));
        }
        caveats.extend(self.bound.iter().map(Bound::to_caveat));
        caveats.extend(self.handle.iter().map(|handle| format!("{HANDLE}={handle}")));
        caveats
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caveat_is_split_at_the_first_equals_sign_and_not_trimmed() {
        let caveat = Caveat::parse("a = b=c").unwrap();
        assert_eq!((caveat.condition(), caveat.value()), ("a ", " b=c"));
        assert_eq!(Caveat::parse("services"), None);
    }

    #[test]
    fn numbers_are_plain_digits() {
        assert_eq!(digits("0"), Some(0));
        assert_eq!(digits("18446744073709551615"), Some(u64::MAX));
        for text in ["", "+1", "-1", " 1", "1 ", "1e3", "1.0", "0x1", "18446744073709551616", "١"] {
            assert_eq!(digits(text), None, "{text}");
        }
    }
}
