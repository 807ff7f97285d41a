//! A weaker credential, to hand to a helper: it opens less than the token that
//! it is made of, and nobody can take that back out of it.

use std::collections::BTreeMap;

use base64::Engine as _;
use http::{HeaderValue, Method};
use zeroize::Zeroizing;

use crate::caveat::{Caveat, has_capability};
use crate::credential::{STANDARD, URL_SAFE};
use crate::macaroon::{MAX_MACAROON, Macaroon};

use super::store::{Purchase, PurchaseState};
use super::token;

/// What a token is cut down to. What is not named stays as it was bought.
///
/// ```
/// use l402::client::Restriction;
///
/// let for_my_helper = Restriction::new().add_capability("read").with_valid_until(1_900_000_000);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Restriction {
    capabilities: Vec<String>,
    valid_until: Option<u64>,
    max_uses: Option<u64>,
    methods: Vec<Method>,
}

impl Restriction {
    /// One that takes nothing away yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Leaves this capability, and the others that are named so.
    pub fn add_capability(mut self, capability: impl Into<String>) -> Self {
        self.capabilities.push(capability.into());
        self
    }

    /// Ends it at this time, in unix seconds.
    pub fn with_valid_until(mut self, unix_seconds: u64) -> Self {
        self.valid_until = Some(unix_seconds);
        self
    }

    /// Ends it once the token has been used this often, by whomever, counted
    /// from when it was bought.
    pub fn with_max_uses(mut self, uses: u64) -> Self {
        self.max_uses = Some(uses);
        self
    }

    /// Leaves this HTTP method, and the others that are named so.
    pub fn add_method(mut self, method: Method) -> Self {
        self.methods.push(method);
        self
    }

    /// The caveats for one service of a token, by what the token says of it.
    fn caveats(&self, service: &str, said: &Said) -> Result<Vec<String>, RestrictError> {
        let mut caveats = Vec::new();
        if !self.capabilities.is_empty() {
            let held = said.last(service, "capabilities").ok_or(RestrictError::NotSold("capabilities"))?;
            if let Some(other) = self.capabilities.iter().find(|name| !has_capability(held, name)) {
                return Err(RestrictError::Wider(format!("the capability `{}`", other.escape_debug())));
            }
            let mut names = self.capabilities.clone();
            names.sort_unstable();
            names.dedup();
            caveats.push(format!("{service}_capabilities={}", names.join(",")));
        }
        for (wanted, condition, what) in [
            (self.valid_until, "valid_until", "an end that it can have earlier"),
            (self.max_uses, "max_uses", "a count of uses"),
        ] {
            let Some(wanted) = wanted else { continue };
            let held = said.least(service, condition).ok_or(RestrictError::NotSold(what))?;
            if wanted > held {
                return Err(RestrictError::Wider(format!("{condition} {wanted}, where it has {held}")));
            }
            caveats.push(format!("{service}_{condition}={wanted}"));
        }
        if !self.methods.is_empty() {
            let names: Vec<_> = self.methods.iter().map(Method::as_str).collect();
            caveats.push(format!("{service}_method={}", names.join(",")));
        }
        Ok(caveats)
    }
}

impl Purchase {
    /// What the Authorization header of a request has to say: whoever has it may
    /// use the token. Marked sensitive; `None` where no token is held.
    pub fn credential(&self) -> Option<HeaderValue> {
        let PurchaseState::Held { preimage, .. } = &self.state else { return None };
        token::credential(&self.token, preimage)
    }

    /// A credential that opens less, in the place of [`credential`](Self::credential).
    /// The token that is held stays as it is, and its uses are counted together
    /// with those of the weaker one.
    ///
    /// # Errors
    /// It cannot be restricted so; nothing was made.
    pub fn restrict(&self, restriction: &Restriction) -> Result<HeaderValue, RestrictError> {
        let PurchaseState::Held { preimage, .. } = &self.state else { return Err(RestrictError::NotHeld) };
        let engine = if self.token.contains(['-', '_']) { &URL_SAFE } else { &STANDARD };
        let mut bytes = Zeroizing::new([0; MAX_MACAROON]);
        let len = engine.decode_slice(&self.token, &mut *bytes).map_err(|_| RestrictError::Opaque)?;
        let macaroon = Macaroon::decode(&bytes[..len]).map_err(|_| RestrictError::Opaque)?;
        let said = Said::by(&macaroon);
        if said.services.is_empty() {
            return Err(RestrictError::Opaque);
        }
        let mut weaker = macaroon.clone().into_owned();
        for service in &said.services {
            for caveat in restriction.caveats(service, &said)? {
                weaker = weaker.attenuate(caveat).map_err(|_| RestrictError::TooLong)?;
            }
        }
        if weaker.as_bytes() == macaroon.as_bytes() {
            return Err(RestrictError::Nothing);
        }
        Ok(weaker.credential(preimage))
    }
}

/// What a token says of its services.
struct Said {
    services: Vec<String>,
    /// By condition: its values, in their order.
    values: BTreeMap<String, Vec<String>>,
}

impl Said {
    fn by(macaroon: &Macaroon<'_>) -> Self {
        let mut values = BTreeMap::<String, Vec<String>>::new();
        for bytes in macaroon.caveats() {
            let caveat = std::str::from_utf8(bytes).ok().and_then(Caveat::parse);
            if let Some(caveat) = caveat {
                values.entry(caveat.condition().to_owned()).or_default().push(caveat.value().to_owned());
            }
        }
        // A later list names fewer services, never more.
        let list = values.get("services").and_then(|lists| lists.last());
        let name = |entry: &str| entry.split(':').next().unwrap_or_default().to_owned();
        let services = list.map(|list| list.split(',').map(name).collect()).unwrap_or_default();
        Self { services, values }
    }

    fn of(&self, service: &str, condition: &str) -> impl Iterator<Item = &str> {
        let values = self.values.get(&format!("{service}_{condition}"));
        values.into_iter().flatten().map(String::as_str)
    }

    fn last(&self, service: &str, condition: &str) -> Option<&str> {
        self.of(service, condition).last()
    }

    fn least(&self, service: &str, condition: &str) -> Option<u64> {
        self.of(service, condition).filter_map(|value| value.parse().ok()).min()
    }
}

/// Why a token is not restricted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RestrictError {
    /// No token is held: it is not paid yet, or it is gone.
    #[error("no token is held: it is not paid yet, used up, or expired")]
    NotHeld,
    /// The token is no macaroon that names its services.
    #[error("the token is opaque: its seller alone could restrict it")]
    Opaque,
    /// The restriction names nothing.
    #[error("nothing is taken away: name a capability, an end, a count of uses or a method")]
    Nothing,
    /// The token was sold without what should be less of.
    #[error("the token was sold without {0}, so no gate would accept less of it")]
    NotSold(&'static str),
    /// It would be more than the token has.
    #[error("the token does not have {0}: a restriction takes away, and never adds")]
    Wider(String),
    /// The token is full.
    #[error("the token has no room for another condition")]
    TooLong,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::macaroon::{Identifier, mint};
    use crate::preimage::Preimage;

    fn held(caveats: &[&str]) -> Purchase {
        let preimage = Preimage::from_bytes([7; 32]);
        let payment_hash = preimage.payment_hash();
        let identifier = Identifier { version: 0, payment_hash, token_id: [1; 32].into() };
        let mut purchase = Purchase::new(payment_hash, "https://api.example", 1_000, 1);
        purchase.token = mint(b"root", &identifier, caveats).unwrap().to_base64();
        purchase.state = PurchaseState::Held { preimage, fee_msat: 0, paid_at: 1 };
        purchase
    }

    fn added(purchase: &Purchase, restriction: &Restriction) -> Result<Vec<String>, RestrictError> {
        let value = purchase.restrict(restriction)?;
        assert!(value.is_sensitive());
        let text = value.to_str().unwrap().strip_prefix("L402 ").unwrap();
        let (token, _) = text.split_once(':').unwrap();
        let bytes = STANDARD.decode(token).unwrap();
        let macaroon = Macaroon::decode(&bytes).unwrap();
        assert!(macaroon.verify(b"root"));
        let caveats = macaroon.caveats().map(|bytes| String::from_utf8(bytes.to_vec()).unwrap());
        Ok(caveats.collect())
    }

    const SOLD: [&str; 4] =
        ["services=a:0,b:1", "a_capabilities=read,write", "a_valid_until=200", "b_valid_until=300"];

    #[test]
    fn every_service_of_a_token_is_restricted() {
        let restriction = Restriction::new().with_valid_until(100).add_method(Method::GET);
        let caveats = added(&held(&SOLD), &restriction).unwrap();
        assert_eq!(caveats[..4], SOLD);
        assert_eq!(caveats[4..], ["a_valid_until=100", "a_method=GET", "b_valid_until=100", "b_method=GET"]);
    }

    #[test]
    fn what_a_token_does_not_have_is_not_left_to_it() {
        let one = held(&["services=a:0", "a_capabilities=read,write", "a_valid_until=200", "a_max_uses=9"]);
        assert_eq!(
            added(&one, &Restriction::new().add_capability("read")).unwrap()[4],
            "a_capabilities=read"
        );
        for (restriction, wider) in [
            (Restriction::new().add_capability("admin"), "the capability `admin`"),
            (Restriction::new().add_capability("read,write"), "the capability `read,write`"),
            (Restriction::new().with_valid_until(201), "valid_until 201, where it has 200"),
            (Restriction::new().with_max_uses(10), "max_uses 10, where it has 9"),
        ] {
            assert_eq!(added(&one, &restriction), Err(RestrictError::Wider(wider.to_owned())));
        }
        // `b` has no capabilities, and `a` no count.
        for restriction in [Restriction::new().add_capability("read"), Restriction::new().with_max_uses(1)] {
            let error = added(&held(&SOLD), &restriction);
            assert!(matches!(error, Err(RestrictError::NotSold(_))), "{error:?}");
        }
    }

    #[test]
    fn a_token_that_cannot_be_restricted_says_why() {
        let end = Restriction::new().with_valid_until(1);
        assert_eq!(added(&held(&SOLD), &Restriction::new()), Err(RestrictError::Nothing));
        assert_eq!(added(&held(&["location=x"]), &end), Err(RestrictError::Opaque));
        let mut opaque = held(&SOLD);
        opaque.token = "eyJhIjoxfQ.00ff".to_owned();
        assert_eq!(added(&opaque, &end), Err(RestrictError::Opaque));
        let mut pending = held(&SOLD);
        pending.state = PurchaseState::Pending;
        assert_eq!(added(&pending, &end), Err(RestrictError::NotHeld));
        assert!(pending.credential().is_none());
    }
}
