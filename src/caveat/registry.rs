//! The conditions that a server adds to the built-in ones.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use http::request::Parts;

use crate::error::{Error, ErrorKind};
use crate::macaroon::{TokenId, Verified};
use crate::panics::unless_panics;
use crate::preimage::PaymentHash;
use crate::refusal::Refusal;

use super::{Caveat, HANDLE, PREIMAGE, SERVICES, SUFFIXES, Scope};

/// Longest value that a token is bound to, in bytes.
const MAX_BOUND: usize = 256;

type CheckFn = Arc<dyn Fn(&Check<'_>) -> bool + Send + Sync>;
type BindFn = Arc<dyn Fn(&Parts) -> Option<String> + Send + Sync>;

#[derive(Clone)]
enum Rule {
    Check(CheckFn),
    Bind(BindFn),
}

/// Which conditions an issuer knows beside the built-in ones. One registry
/// serves all gates of the issuer, and its closures run after signature and
/// preimage held.
///
/// ```
/// use l402::CaveatRegistry;
///
/// let caveats = CaveatRegistry::new()
///     // minted from the request that is answered 402, and equal ever after
///     .bind("tenant", |head| Some(head.headers.get("x-tenant")?.to_str().ok()?.to_owned()))
///     // may be added by a holder, who hands the token on
///     .check("path_prefix", |c| c.head().uri.path().starts_with(c.value()));
/// ```
///
/// A condition's name is 1 to 64 of `a-z`, `0-9`, `-` and `_`; one that equals
/// or ends in a built-in name, or stands twice, does not build.
#[derive(Clone, Default)]
pub struct CaveatRegistry {
    rules: Vec<(Arc<str>, Rule)>,
    skip_unknown: bool,
}

impl CaveatRegistry {
    /// A registry that knows the built-in conditions alone.
    pub fn new() -> Self {
        Self::default()
    }

    /// A condition that a holder may add: the closure says whether it holds.
    /// Where it panics, it does not.
    pub fn check<F>(mut self, condition: &str, holds: F) -> Self
    where
        F: Fn(&Check<'_>) -> bool + Send + Sync + 'static,
    {
        self.rules.push((condition.into(), Rule::Check(Arc::new(holds))));
        self
    }

    /// A condition that ties every token to a property of the request that
    /// bought it. The closure reads the property from a request's head (which
    /// has no credential). It is minted into the token, and every request with
    /// the token has to have the same; a request without it (`None`) buys a
    /// token for requests without it. Values have at most 256 bytes. Where the
    /// closure panics, nothing is sold (500), and no token holds.
    pub fn bind<F>(mut self, condition: &str, read: F) -> Self
    where
        F: Fn(&Parts) -> Option<String> + Send + Sync + 'static,
    {
        self.rules.push((condition.into(), Rule::Bind(Arc::new(read))));
        self
    }

    /// Skips caveats whose condition nobody registered, as the L402
    /// specification has it, in place of refusing them. Dangerous: a holder
    /// who restricts a token with a condition that this server does not know
    /// hands on an unrestricted one.
    pub fn dangerous_skip_unknown_caveats(mut self) -> Self {
        self.skip_unknown = true;
        self
    }

    pub(super) fn skips_unknown(&self) -> bool {
        self.skip_unknown
    }

    pub(crate) fn validate(&self) -> Result<(), Error> {
        for (i, (name, _)) in self.rules.iter().enumerate() {
            let error = |what: &str| {
                Err(Error::new(ErrorKind::Name, format!("condition `{}` {what}", name.escape_debug())))
            };
            let allowed = |b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_');
            if !(1..=64).contains(&name.len()) || !name.bytes().all(allowed) {
                return error("is not 1 to 64 of a-z, 0-9, `-` and `_`");
            }
            let mut built_in = SUFFIXES.iter().map(|(suffix, _)| *suffix).chain([SERVICES, PREIMAGE, HANDLE]);
            let is_like = |taken: &&str| {
                name.strip_suffix(taken).is_some_and(|rest| rest.is_empty() || rest.ends_with('_'))
            };
            if let Some(taken) = built_in.find(is_like) {
                return error(&format!("ends in the built-in `{taken}`"));
            }
            if self.rules[..i].iter().any(|(other, _)| other == name) {
                return error("is registered twice");
            }
        }
        Ok(())
    }

    /// Whether the condition is registered; an error where it does not hold.
    pub(super) fn apply(
        &self,
        caveat: Caveat<'_>,
        token: &Verified<'_>,
        scope: &Scope<'_>,
    ) -> Result<bool, Refusal> {
        let Some((name, rule)) = self.rules.iter().find(|(name, _)| **name == *caveat.condition) else {
            return Ok(false);
        };
        let holds = match rule {
            Rule::Check(holds) => unless_panics(|| holds(&Check { caveat, token, scope })) == Some(true),
            Rule::Bind(read) => {
                unless_panics(|| read(scope.head)).flatten().is_some_and(|value| value == caveat.value)
            }
        };
        if holds { Ok(true) } else { Err(Refusal::ConditionFailed(name.clone())) }
    }

    /// Whether every property that tokens are bound to stands among the minted
    /// caveats. That its value is the request's, [`apply`](Self::apply) says.
    pub(super) fn check_bound(&self, token: &Verified<'_>, scope: &Scope<'_>) -> Result<(), Refusal> {
        for (name, rule) in &self.rules {
            let Rule::Bind(read) = rule else { continue };
            if !is_minted(token, name) && unless_panics(|| read(scope.head)) != Some(None) {
                return Err(Refusal::ConditionFailed(name.clone()));
            }
        }
        Ok(())
    }

    /// What a token that this request buys is bound to.
    pub(crate) fn bind_to(&self, head: &Parts) -> Result<Vec<Bound>, Refusal> {
        let mut bound = Vec::new();
        for (name, rule) in &self.rules {
            let Rule::Bind(read) = rule else { continue };
            match unless_panics(|| read(head)).ok_or(Refusal::Misconfigured)? {
                Some(value) if value.len() > MAX_BOUND => return Err(Refusal::Unbindable(name.clone())),
                Some(value) => bound.push(Bound { condition: name.clone(), value }),
                None => {}
            }
        }
        Ok(bound)
    }

    /// The most that `bind` may add to a token.
    pub(crate) fn longest_bound(&self) -> Vec<Bound> {
        let bound = self.rules.iter().filter(|(_, rule)| matches!(rule, Rule::Bind(_)));
        bound.map(|(name, _)| Bound { condition: name.clone(), value: "x".repeat(MAX_BOUND) }).collect()
    }

    /// Whether tokens are bound by anything.
    #[cfg(feature = "offers")]
    pub(crate) fn binds_any(&self) -> bool {
        self.rules.iter().any(|(_, rule)| matches!(rule, Rule::Bind(_)))
    }

    /// Whether tokens are bound by this condition.
    pub(crate) fn binds(&self, condition: &str) -> bool {
        self.rules.iter().any(|(name, rule)| **name == *condition && matches!(rule, Rule::Bind(_)))
    }
}

/// Whether the server minted a caveat of this condition into the token.
pub(crate) fn is_minted(token: &Verified<'_>, condition: &str) -> bool {
    token.caveats().filter(|(_, minted)| *minted).any(|(caveat, _)| {
        caveat.strip_prefix(condition.as_bytes()).is_some_and(|rest| rest.first() == Some(&b'='))
    })
}

impl fmt::Debug for CaveatRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.rules.iter().map(|(name, _)| name);
        f.debug_struct("CaveatRegistry")
            .field("conditions", &names.collect::<Vec<_>>())
            .field("skip_unknown", &self.skip_unknown)
            .finish()
    }
}

/// A property that a token is bound to.
#[derive(Debug)]
pub(crate) struct Bound {
    condition: Arc<str>,
    value: String,
}

impl Bound {
    pub(crate) fn is(&self, condition: &str) -> bool {
        *self.condition == *condition
    }

    #[cfg(feature = "page")]
    pub(super) fn has(&self, value: &str) -> bool {
        self.value == value
    }

    pub(crate) fn to_caveat(&self) -> String {
        format!("{}={}", self.condition, self.value)
    }

    /// Reads what [`to_caveat`](Self::to_caveat) wrote.
    #[cfg(feature = "offers")]
    pub(crate) fn from_caveat(text: &str) -> Option<Self> {
        let caveat = Caveat::parse(text)?;
        Some(Self { condition: caveat.condition.into(), value: caveat.value.to_owned() })
    }
}

/// A caveat to be judged, as the closure of [`CaveatRegistry::check`] sees it:
/// beside the request, the token it stands in and the time.
#[derive(Debug)]
pub struct Check<'a> {
    caveat: Caveat<'a>,
    token: &'a Verified<'a>,
    scope: &'a Scope<'a>,
}

impl Check<'_> {
    /// What stands behind the first `=` of the caveat.
    pub fn value(&self) -> &str {
        self.caveat.value
    }

    /// The head of the request, without its credential.
    pub fn head(&self) -> &Parts {
        self.scope.head
    }

    /// The service whose gate judges.
    pub fn service(&self) -> &str {
        self.scope.service
    }

    /// The hash of the invoice that paid for the token.
    pub fn payment_hash(&self) -> PaymentHash {
        self.token.payment_hash()
    }

    /// The id of the token.
    pub fn token_id(&self) -> TokenId {
        self.token.token_id()
    }

    /// The caveats that the server minted: what the token was sold as. Those
    /// that a holder added say nothing, and one may hold the preimage.
    pub fn minted(&self) -> impl Iterator<Item = Caveat<'_>> {
        let minted = self.token.caveats().filter(|(_, minted)| *minted);
        minted.filter_map(|(bytes, _)| Caveat::parse(std::str::from_utf8(bytes).ok()?))
    }

    /// The present moment.
    pub fn now(&self) -> SystemTime {
        self.scope.now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn validate(condition: &str) -> Result<(), Error> {
        CaveatRegistry::new().check(condition, |_| true).validate()
    }

    #[test]
    fn a_condition_like_a_built_in_one_does_not_build() {
        for name in
            ["services", "preimage", "max_uses", "api_valid_until", "my_offer", "", "Tenant", "a=b", "a b"]
        {
            assert_eq!(validate(name).unwrap_err().kind(), ErrorKind::Name, "{name}");
        }
        for name in ["tenant", "max_bytes", "path_prefix", "offer_of", "accurate"] {
            assert!(validate(name).is_ok(), "{name}");
        }
    }

    #[test]
    fn a_condition_registered_twice_does_not_build() {
        let twice = CaveatRegistry::new().check("tenant", |_| true).bind("tenant", |_| None);
        assert!(twice.validate().unwrap_err().to_string().contains("twice"));
    }
}
