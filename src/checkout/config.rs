//! What the operator says of the checkout.

use std::sync::Arc;
use std::time::Duration;

use super::{PaymentMethod, context};
use crate::clock::HOUR;
use crate::error::{Error, ErrorKind};

/// Which shape of the offers body a 402 has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OffersVersion {
    /// 0.2.2: amounts in minor units, and payment details on request.
    #[default]
    V0_2_2,
    /// 1.0: amounts in major units, at most 3 offers, and for Lightning the
    /// payment details within, so that a 402 has up to 3 invoices made.
    V1_0,
}

/// Configures the checkout of an issuer:
/// [`IssuerBuilder::with_checkout`](crate::IssuerBuilder::with_checkout).
///
/// ```
/// use l402::checkout::CheckoutConfig;
///
/// let checkout = CheckoutConfig::new("https://api.example.com/l402")
///     .with_terms_url("https://example.com/terms");
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct CheckoutConfig {
    pub(crate) base_url: String,
    pub(crate) version: OffersVersion,
    pub(crate) methods: Vec<Arc<dyn PaymentMethod>>,
    pub(crate) terms_url: Option<String>,
    pub(crate) return_url: Option<String>,
    pub(crate) client_note: Option<String>,
    pub(crate) lifetime: Duration,
}

impl CheckoutConfig {
    /// The checkout whose routes are at this URL, as clients and providers reach
    /// it: `<base_url>/payment-request`, `<base_url>/status` and
    /// `<base_url>/webhooks/<method>`. Lightning is a method of it from the start.
    pub fn new(base_url: impl Into<String>) -> Self {
        Self {
            base_url: base_url.into(),
            version: OffersVersion::default(),
            methods: Vec::new(),
            terms_url: None,
            return_url: None,
            client_note: None,
            lifetime: HOUR,
        }
    }

    /// Adds a method of payment. The issuer then needs a ledger, which has the
    /// accounts that are paid for.
    pub fn add_method(mut self, method: impl PaymentMethod + 'static) -> Self {
        self.methods.push(Arc::new(method));
        self
    }

    /// The shape of the offers body, [0.2.2](OffersVersion::V0_2_2) unless set.
    pub fn with_version(mut self, version: OffersVersion) -> Self {
        self.version = version;
        self
    }

    /// The terms of sale, told in the body; none unless set.
    pub fn with_terms_url(mut self, url: impl Into<String>) -> Self {
        self.terms_url = Some(url.into());
        self
    }

    /// Where a payer's browser goes after the payment; the provider's choice
    /// unless set.
    pub fn with_return_url(mut self, url: impl Into<String>) -> Self {
        self.return_url = Some(url.into());
        self
    }

    /// A line for whoever reads the body, in `metadata.client_note`; none unless set.
    pub fn with_client_note(mut self, note: impl Into<String>) -> Self {
        self.client_note = Some(note.into());
        self
    }

    /// How long a checkout can be paid after the last moment at which it may be
    /// chosen from its 402, which is ten minutes after that: an hour unless set, 31
    /// minutes at least and 23 hours at most. So it is within the half an hour and
    /// the day that providers allow, whenever it is asked for. Whole seconds.
    pub fn with_lifetime(mut self, lifetime: Duration) -> Self {
        self.lifetime = lifetime;
        self
    }

    pub(crate) fn validate(&self) -> Result<(), Error> {
        let error = |what: String| Err(Error::new(ErrorKind::Checkout, what));
        let is_url = |url: &str| {
            let uri: Option<http::Uri> = url.parse().ok();
            uri.is_some_and(|uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some())
        };
        let base = self.base_url.as_str();
        if !is_url(base) || base.ends_with('/') || base.contains(['?', '#', '"', '<']) {
            return error(format!(
                "`{base}` is no URL of a checkout: `https://host/path`, no slash at its end"
            ));
        }
        for url in [&self.terms_url, &self.return_url].into_iter().flatten() {
            if !is_url(url) {
                return error(format!("`{url}` is no `https://` or `http://` URL"));
            }
        }
        for (i, method) in self.methods.iter().enumerate() {
            let name = method.name();
            let allowed = |b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_');
            if !(1..=32).contains(&name.len()) || !name.bytes().all(allowed) || name == LIGHTNING {
                return error(format!("`{}` is no name of a payment method", name.escape_debug()));
            }
            if self.methods[..i].iter().any(|other| other.name() == name) {
                return error(format!("two payment methods have the name `{name}`"));
            }
        }
        Ok(())
    }

    pub(crate) fn lifetime_seconds(&self) -> u64 {
        self.lifetime.as_secs().clamp(31 * 60, 23 * 60 * 60)
    }

    /// How long after a 402 what it sells may be paid for.
    pub(crate) fn pending_seconds(&self) -> u64 {
        self.lifetime_seconds() + context::LIFETIME
    }
}

/// The method that every checkout has.
pub(crate) const LIGHTNING: &str = "lightning";
