//! What a server asks for, before anything is paid.

use std::fmt;

use bytes::Bytes;

use super::store::Purchase;
use super::token::Token;

/// What one request would cost: what a confirmation decides on, and what a dry
/// run gives in place of an answer.
#[derive(Clone)]
#[non_exhaustive]
pub struct Quote {
    /// Who asks: scheme, host and port, as in `https://api.example`.
    pub origin: String,
    /// The path that was asked for, without its query.
    pub path: String,
    /// The services that the token opens, where it tells.
    pub services: Vec<String>,
    /// The price, in msat.
    pub amount_msat: u64,
    /// What the payment may cost beside it, in msat.
    pub max_fee_msat: u64,
    /// The prices of all challenges that could be paid, in msat, in the
    /// server's order; this quote is for one of them.
    pub offered_msat: Vec<u64>,
    /// The body of the server's answer, where [`Client`](super::Client) read it:
    /// many servers list their offers in it. It may be anything.
    pub body: Option<Bytes>,
}

impl Quote {
    /// What a purchase costs that was begun before, and not paid.
    pub(super) fn of(purchase: &Purchase, body: Option<Bytes>) -> Self {
        Self {
            origin: purchase.origin.clone(),
            path: purchase.path.clone(),
            services: Token::read(&purchase.token).map(|token| token.services.clone()).unwrap_or_default(),
            amount_msat: purchase.amount_msat,
            max_fee_msat: purchase.max_fee_msat,
            offered_msat: vec![purchase.amount_msat],
            body,
        }
    }
}

impl fmt::Debug for Quote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Quote")
            .field("origin", &self.origin)
            .field("path", &self.path)
            .field("services", &self.services)
            .field("amount_msat", &self.amount_msat)
            .field("max_fee_msat", &self.max_fee_msat)
            .field("offered_msat", &self.offered_msat)
            .finish_non_exhaustive()
    }
}
