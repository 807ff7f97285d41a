//! What a gate says of a request, at once or when it has asked.

use std::sync::Arc;

use bytes::Bytes;
use http::Response;
#[cfg(feature = "page")]
use http::StatusCode;

use crate::admission::Admission;
use crate::answer::Refused;
use crate::credential::Presented;
use crate::grant::Taken;
use crate::offer::Offer;
use crate::price::Amount;
#[cfg(feature = "page")]
use crate::refusal::Refusal;
use crate::ruling::Ruling;

/// Who asks: with what credential, and what a gate further out took for it.
#[derive(Debug)]
pub(crate) struct Bearer {
    pub(crate) presented: Option<Presented>,
    pub(crate) outer: Option<Outer>,
}

impl Bearer {
    pub(crate) fn of(presented: Option<Presented>) -> Self {
        Self { presented, outer: None }
    }

    /// Nobody chose to show a cookie: one that is broken is as good as none, so
    /// that its browser is not shut out until it forgets it.
    #[cfg(feature = "page")]
    pub(crate) fn excuse(&self, refused: Refused) -> Refused {
        let broken = refused.refusal.status() == StatusCode::UNAUTHORIZED;
        if broken && self.presented.as_ref().is_some_and(Presented::is_cookie) {
            Refusal::MissingCredential.into()
        } else {
            refused
        }
    }
}

/// What a gate further out took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outer {
    pub(crate) taken: Taken,
    pub(crate) remaining: Option<u64>,
}

/// What a gate says of a request at once.
#[derive(Debug)]
pub(crate) enum Judged {
    Decided(Decided),
    Undecided(Pending),
}

impl From<Result<Decided, Box<Unpriced>>> for Judged {
    fn from(refused: Result<Decided, Box<Unpriced>>) -> Self {
        refused.map_or_else(|unpriced| Self::Undecided(Pending::Unpriced(unpriced)), Self::Decided)
    }
}

/// What has to be asked before a request is decided.
#[expect(clippy::large_enum_variant, reason = "a use is asked for in the larger one")]
#[derive(Debug)]
pub(crate) enum Pending {
    /// A credential is good, if pricer, backend and ledger say so too.
    Ruled(Bearer, Ruling),
    /// The accounts of the application's own user.
    #[cfg(feature = "offers")]
    Subject(Bearer, crate::checkout::Subject),
    /// The price of what is to be sold.
    Unpriced(Box<Unpriced>),
}

/// A refusal that buying this offer mends, at a price that has to be asked.
#[derive(Debug)]
pub(crate) struct Unpriced {
    pub(crate) bearer: Bearer,
    pub(crate) refused: Refused,
    pub(crate) offer: Arc<Offer>,
}

/// What becomes of a request.
#[expect(clippy::large_enum_variant, reason = "the admitted path allocates nothing")]
#[derive(Debug)]
pub(crate) enum Decided {
    Admitted(Admission),
    Refused(Response<Bytes>),
    /// Refused, and answered with a challenge: it never reaches the inner
    /// service, which need not be kept ready while the backend is asked.
    Payable(Payable),
}

/// A refusal that buying this offer at this price mends.
#[derive(Debug)]
pub(crate) struct Payable {
    pub(crate) refused: Refused,
    pub(crate) offer: Arc<Offer>,
    pub(crate) price: Amount,
    #[cfg(feature = "offers")]
    pub(crate) presented: Option<Presented>,
}
