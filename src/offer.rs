//! What is sold: a price, and the access it buys.

use std::fmt;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;

use crate::clock::DAY;
use crate::error::{Error, ErrorKind};
use crate::name;
use crate::price::Price;
use crate::pricer::{AsyncFn, PriceError, Pricer, Pricing};

/// The access that one payment buys.
///
/// ```
/// use l402::{Access, DAY, HOUR};
/// const TRIAL: Access = Access::uses(100).within(DAY);
/// const DAY_PASS: Access = Access::pass(DAY);
/// ```
///
/// ```compile_fail
/// # use l402::Access;
/// const NOTHING: Access = Access::uses(0);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    uses: Option<NonZeroU64>,
    seconds: NonZeroU64,
    rate: Option<Rate>,
}

/// `n` requests in `seconds` on average, with a burst of `n`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rate {
    pub(crate) n: NonZeroU64,
    pub(crate) seconds: NonZeroU64,
}

impl Rate {
    pub(crate) fn new(n: u64, seconds: u64) -> Option<Self> {
        Some(Self {
            n: NonZeroU64::new(n)?,
            seconds: NonZeroU64::new(seconds).filter(|seconds| seconds.get() <= MAX_SECONDS)?,
        })
    }
}

/// `<n>/<seconds>`, as it stands in the caveat.
impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.n, self.seconds)
    }
}

/// Longest description of a BOLT 11 invoice, in bytes.
const MAX_TITLE: usize = 639;
/// How long counted uses last where `within` does not say.
const DEFAULT_WITHIN: Duration = Duration::from_secs(30 * DAY.as_secs());
/// Longest access: 100 years.
const MAX_SECONDS: u64 = 100 * 366 * DAY.as_secs();

impl Access {
    /// One request, strictly: where the client leaves before it was answered,
    /// it is spent. The same as `uses(1)`.
    pub const fn once() -> Self {
        Self::uses(1)
    }

    /// This many requests, within 30 days.
    ///
    /// # Panics
    /// On zero; in a `const`, that does not compile.
    pub const fn uses(n: u64) -> Self {
        match NonZeroU64::new(n) {
            Some(uses) => Self { uses: Some(uses), seconds: whole_seconds(DEFAULT_WITHIN), rate: None },
            None => panic!("nobody pays for 0 uses"),
        }
    }

    /// Any number of requests for this long, which is at least one second and
    /// at most 100 years. It begins when the invoice can no longer be paid, so
    /// a buyer never gets less.
    ///
    /// # Panics
    /// On a duration out of these bounds; in a `const`, that does not compile.
    pub const fn pass(duration: Duration) -> Self {
        Self { uses: None, seconds: whole_seconds(duration), rate: None }
    }

    /// The time within which counted uses have to be made, in place of 30
    /// days. A [`pass`](Self::pass) has its duration already.
    ///
    /// # Panics
    /// On a pass, and on a duration under one second or over 100 years; in a
    /// `const`, that does not compile.
    pub const fn within(self, duration: Duration) -> Self {
        assert!(self.uses.is_some(), "a pass has its duration already");
        Self { seconds: whole_seconds(duration), ..self }
    }

    /// A balance of units, within 30 days, of which each request takes what
    /// its gate [costs](crate::GateBuilder::with_cost): one payment for routes
    /// of different cost. A use is a unit, and a gate costs one unless said.
    ///
    /// # Panics
    /// On zero; in a `const`, that does not compile.
    pub const fn balance(units: u64) -> Self {
        Self::uses(units)
    }

    /// Keeps a [`pass`](Self::pass) to `n` requests in such a time (whole
    /// seconds) on average, with a burst of `n` after a rest, also where it is
    /// shared by many. Beyond it the answer is 429 with Retry-After, and no
    /// invoice. Each process keeps its own rate, for 65,536 passes at once: one
    /// beyond them is answered 429 too.
    ///
    /// # Panics
    /// On zero, on a time out of the bounds of a pass, and on counted uses; in
    /// a `const`, that does not compile.
    pub const fn rate(self, n: u64, per: Duration) -> Self {
        assert!(self.uses.is_none(), "counted uses need no rate");
        match NonZeroU64::new(n) {
            Some(n) => Self { rate: Some(Rate { n, seconds: whole_seconds(per) }), ..self },
            None => panic!("nobody pays for a rate of 0"),
        }
    }

    /// How many units, or `None` for a pass.
    pub fn max_uses(self) -> Option<u64> {
        self.uses.map(NonZeroU64::get)
    }

    pub(crate) fn max_rate(self) -> Option<Rate> {
        self.rate
    }

    /// How long the access lasts, in whole seconds.
    pub fn duration(self) -> Duration {
        Duration::from_secs(self.seconds.get())
    }
}

/// Whole seconds, rounded up: in the buyer's favour, by less than a second.
const fn whole_seconds(duration: Duration) -> NonZeroU64 {
    let round_up = if duration.subsec_nanos() > 0 { 1 } else { 0 };
    let seconds = duration.as_secs();
    assert!(seconds <= MAX_SECONDS, "access lasts at most 100 years");
    match NonZeroU64::new(seconds + round_up) {
        Some(seconds) => seconds,
        None => panic!("nobody pays for 0 seconds"),
    }
}

/// Something for sale at a gate: a price, the [`Access`] it buys, and what the
/// token may open.
///
/// A token is bound to the offer it was bought as, by the offer's id. Sold at
/// a fixed price it stays sold until it expires, whatever the price is then.
/// Sold at a price by the request, it opens what costs at most as much.
#[derive(Clone, Debug)]
pub struct Offer {
    pub(crate) id: Arc<str>,
    pub(crate) pricing: Pricing,
    pub(crate) access: Access,
    pub(crate) tier: u8,
    pub(crate) capabilities: Arc<[String]>,
    pub(crate) also_opens: Vec<String>,
    pub(crate) title: Option<String>,
    pub(crate) description: Option<String>,
    /// Else its tokens are honoured, and no more are sold.
    pub(crate) is_for_sale: bool,
}

impl Offer {
    /// Sells `access` at a fixed price.
    pub fn new(price: Price, access: Access) -> Self {
        Self::with_pricing(Pricing::Fixed(price), access)
    }

    /// Sells `access` at a price that the closure computes from the head of
    /// the request (without its credential).
    ///
    /// A price per document goes with [`Access::once`]. With longer access, a
    /// buyer opens every document that costs as much or less, unless a
    /// condition of [`CaveatRegistry::bind`](crate::CaveatRegistry::bind) ties
    /// the token to one.
    ///
    /// A router decodes a path that the closure sees as it was sent: `/%68d` is
    /// `/hd` to it. So name what is cheap, and let all else cost the higher
    /// price; or decide by what the handler extracts
    /// ([`priced_async`](Self::priced_async)).
    ///
    /// ```
    /// use l402::{Access, Offer, Price};
    /// let offer = Offer::priced(
    ///     |head| Ok(if head.uri.path().ends_with("/sd") { Price::sat(5) } else { Price::sat(20) }),
    ///     Access::once(),
    /// );
    /// ```
    pub fn priced<F>(price: F, access: Access) -> Self
    where
        F: Fn(&Parts) -> Result<Price, PriceError> + Send + Sync + 'static,
    {
        Self::with_pricing(Pricing::Computed(Arc::new(price)), access)
    }

    /// As [`priced`](Self::priced), with a closure that has to ask for the
    /// price: see [`Pricer`] for when and how long.
    ///
    /// ```
    /// # #[cfg(feature = "axum")] {
    /// use axum::RequestPartsExt as _;
    /// use axum::extract::Path;
    /// use http::StatusCode;
    /// use l402::{Access, Offer, Price, PriceError};
    ///
    /// # #[derive(Clone)] struct Db;
    /// # impl Db { async fn pages(&self, _: u64) -> Result<Option<u64>, std::io::Error> { Ok(None) } }
    /// # let db = Db;
    /// let docs = Offer::priced_async(move |head| {
    ///     let (mut head, db) = (head.clone(), db.clone());
    ///     async move {
    ///         let not_found = || PriceError::reject(StatusCode::NOT_FOUND);
    ///         let Path(id) = head.extract::<Path<u64>>().await.map_err(|_| not_found())?;
    ///         let pages = db.pages(id).await.map_err(PriceError::unavailable)?.ok_or_else(not_found)?;
    ///         Ok(Price::try_msat(pages * 500)?)
    ///     }
    /// }, Access::once());
    /// # }
    /// ```
    pub fn priced_async<F, Fut>(price: F, access: Access) -> Self
    where
        F: Fn(&Parts) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Price, PriceError>> + Send + 'static,
    {
        Self::priced_by(AsyncFn(price), access)
    }

    /// As [`priced`](Self::priced), by a [`Pricer`].
    pub fn priced_by(pricer: impl Pricer + 'static, access: Access) -> Self {
        Self::with_pricing(Pricing::Asked(Arc::new(pricer)), access)
    }

    fn with_pricing(pricing: Pricing, access: Access) -> Self {
        Self {
            id: "default".into(),
            pricing,
            access,
            tier: 0,
            capabilities: Arc::default(),
            also_opens: Vec::new(),
            title: None,
            description: None,
            is_for_sale: true,
        }
    }

    /// The id that tokens of this offer carry: `[a-z0-9-]{1,64}`, `default`
    /// unless set. Keep it while tokens are out: those of an id that is gone
    /// are refused. A new amount needs no new id. A price by the request in
    /// place of a fixed one does: it refuses tokens that are bound to no price.
    pub fn with_id(mut self, id: &str) -> Self {
        self.id = id.into();
        self
    }

    /// What the buyer is told, and what stands in the invoice: 639 bytes at
    /// most (BOLT 11), and fewer on some nodes.
    pub fn with_title(mut self, title: impl Into<String>) -> Self {
        self.title = Some(title.into());
        self
    }

    /// A longer text for the buyer.
    pub fn with_description(mut self, description: impl Into<String>) -> Self {
        self.description = Some(description.into());
        self
    }

    /// The tier that is sold, 0 unless set. A gate can require a tier.
    pub fn with_tier(mut self, tier: u8) -> Self {
        self.tier = tier;
        self
    }

    /// The capabilities that are sold, each `[a-z0-9-]{1,64}`; none unless
    /// set, 64 at most. A gate can require one.
    pub fn with_capabilities(mut self, capabilities: &[&str]) -> Self {
        self.capabilities = capabilities.iter().map(|&name| name.to_owned()).collect();
        self
    }

    /// Other services of the same issuer that the token opens too, at the same
    /// tier and with the same capabilities, until the same moment and from the same count. A price by the
    /// request opens no other service, for that service could not tell whether
    /// it was high enough.
    pub fn also_opens(mut self, services: &[&str]) -> Self {
        self.also_opens = services.iter().map(|&name| name.to_owned()).collect();
        self
    }

    /// Whether a token of one is as good as a token of the other.
    pub(crate) fn has_terms_of(&self, other: &Self) -> bool {
        self.pricing == other.pricing
            && self.access == other.access
            && self.tier == other.tier
            && self.capabilities == other.capabilities
            && self.also_opens == other.also_opens
    }

    pub(crate) fn is_metered(&self) -> bool {
        self.access.uses.is_some()
    }

    pub(crate) fn validate(&self, service: &str) -> Result<(), Error> {
        let names = [&*self.id]
            .into_iter()
            .chain(self.capabilities.iter().chain(&self.also_opens).map(String::as_str));
        for name in names {
            name::validate(name)?;
        }
        let error = |message: String| Err(Error::new(ErrorKind::Offer, message));
        if self.capabilities.len() > 64 {
            return error(format!("offer `{}` has more than 64 capabilities", self.id));
        }
        if self.also_opens.iter().any(|other| other == service) {
            return error(format!("offer `{}` of `{service}` opens `{service}` already", self.id));
        }
        if (1..self.also_opens.len()).any(|i| self.also_opens[..i].contains(&self.also_opens[i])) {
            return error(format!("offer `{}` opens a service twice", self.id));
        }
        if self.title.as_ref().is_some_and(|title| title.len() > MAX_TITLE) {
            return error(format!("the title of offer `{}` is longer than {MAX_TITLE} bytes", self.id));
        }
        if !self.also_opens.is_empty() && self.pricing.is_computed() {
            return error(format!(
                "offer `{}` is priced by the request and cannot open other services",
                self.id
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_second_are_rounded_up() {
        assert_eq!(Access::pass(Duration::from_millis(1)).duration(), Duration::from_secs(1));
        assert_eq!(Access::pass(Duration::from_millis(2500)).duration(), Duration::from_secs(3));
    }

    #[test]
    fn uses_last_30_days_unless_said() {
        assert_eq!(Access::uses(5).duration(), 30 * DAY);
        assert_eq!(Access::once().within(DAY).duration(), DAY);
    }
}
