//! What the operator says of a Stripe account.

use std::fmt;

use zeroize::Zeroizing;

use crate::backend::config::{base_url, env, secret_header};
use crate::error::{Error, ErrorKind};
use crate::macaroon::{HmacSha256, keyed};

/// Which Stripe account is paid, and how its webhooks are known.
#[derive(Clone)]
#[must_use]
pub struct StripeConfig {
    url: String,
    api_key: Zeroizing<String>,
    webhook_secrets: Vec<Zeroizing<String>>,
    return_url: String,
}

impl StripeConfig {
    /// The account of this key (`rk_..`, a restricted one, or `sk_..`), the signing
    /// secret of its webhook endpoint (`whsec_..`), and where the payer's browser
    /// goes after the payment, unless the checkout
    /// [says it](crate::checkout::CheckoutConfig::with_return_url): Stripe wants to
    /// know.
    pub fn new(
        api_key: impl Into<String>,
        webhook_secret: impl Into<String>,
        return_url: impl Into<String>,
    ) -> Self {
        Self {
            url: "https://api.stripe.com".to_owned(),
            api_key: Zeroizing::new(api_key.into()),
            webhook_secrets: vec![Zeroizing::new(webhook_secret.into())],
            return_url: return_url.into(),
        }
    }

    /// The account of the environment: `STRIPE_API_KEY`, `STRIPE_WEBHOOK_SECRET`
    /// (several, separated by commas, while one is rolled) and `STRIPE_RETURN_URL`.
    ///
    /// # Errors
    /// A variable is missing.
    pub fn from_env() -> Result<Self, Error> {
        let env = |name, what| env(name, what).map_err(|error| wrong(error.to_string()));
        let api_key = env("STRIPE_API_KEY", "a restricted key of the account, `rk_..`")?;
        let secrets = env("STRIPE_WEBHOOK_SECRET", "the signing secret of the webhook endpoint, `whsec_..`")?;
        let return_url = env("STRIPE_RETURN_URL", "where a payer's browser goes after the payment")?;
        let mut secrets = secrets.split(',').map(str::trim);
        let first = secrets.next().unwrap_or_default();
        let config = Self::new(&**api_key, first, &**return_url);
        Ok(secrets.fold(config, Self::add_webhook_secret))
    }

    /// Another signing secret that is honoured: of a second endpoint, or the new one
    /// while a secret is rolled.
    pub fn add_webhook_secret(mut self, secret: impl Into<String>) -> Self {
        self.webhook_secrets.push(Zeroizing::new(secret.into()));
        self
    }

    /// Where the API is, `https://api.stripe.com` unless set.
    pub fn with_url(mut self, url: impl Into<String>) -> Self {
        self.url = url.into();
        self
    }

    pub(super) fn check(self) -> Result<Checked, Error> {
        let key = self.api_key.trim();
        if !["rk_", "sk_"].iter().any(|prefix| key.starts_with(prefix)) {
            return Err(wrong("the API key of Stripe does not begin with `rk_` or `sk_`"));
        }
        let bearer = Zeroizing::new(format!("Bearer {key}"));
        let has_prefix =
            |secret: &Zeroizing<String>| secret.trim().len() > 6 && secret.trim().starts_with("whsec_");
        if !self.webhook_secrets.iter().all(has_prefix) {
            return Err(wrong("a signing secret of Stripe's webhooks does not begin with `whsec_`"));
        }
        let return_url: Option<http::Uri> = self.return_url.parse().ok();
        if !return_url.is_some_and(|uri| matches!(uri.scheme_str(), Some("http" | "https"))) {
            return Err(wrong(format!(
                "`{}` is no `https://` or `http://` URL",
                self.return_url.escape_debug()
            )));
        }
        Ok(Checked {
            base: base_url(&self.url).map_err(|error| wrong(error.to_string()))?,
            authorization: secret_header("the API key", &bearer).map_err(|error| wrong(error.to_string()))?,
            webhook_keys: self.webhook_secrets.iter().map(|secret| keyed(secret.trim().as_bytes())).collect(),
            return_url: self.return_url,
        })
    }
}

/// A configuration that can be used.
pub(super) struct Checked {
    pub(super) base: String,
    pub(super) authorization: http::HeaderValue,
    pub(super) webhook_keys: Vec<HmacSha256>,
    pub(super) return_url: String,
}

fn wrong(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::Checkout, what)
}

impl fmt::Debug for StripeConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StripeConfig")
            .field("url", &self.url)
            .field("api_key", &"[redacted]")
            .field("webhook_secrets", &"[redacted]")
            .field("return_url", &self.return_url)
            .finish()
    }
}
