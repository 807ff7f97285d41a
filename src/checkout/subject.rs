//! The application's own user, who is known without a token.

use std::fmt;
use std::sync::Arc;

use http::request::Parts;
use sha2::{Digest, Sha256};

use crate::backend::Network;
use crate::error::{Error, ErrorKind};
use crate::gate_builder::GateBuilder;
use crate::ledger::AccountId;
use crate::panics::unless_panics;

/// One user of the application, of whom no more is kept than a hash.
///
/// ```
/// use l402::checkout::Subject;
/// assert_eq!(Subject::new("user-17"), Subject::new(b"user-17"));
/// assert_ne!(Subject::new("user-17"), Subject::new("user-18"));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Subject([u8; 32]);

impl Subject {
    /// The user of this name: an id that never changes and is nobody else's, as
    /// the primary key of a table of users. Not a mail address, which changes hands.
    pub fn new(name: impl AsRef<[u8]>) -> Self {
        Self(Sha256::new().chain_update("l402/subject/v1").chain_update(name).finalize().into())
    }

    pub(crate) fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// Says nothing of the user: a name may be a secret.
impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Subject(..)")
    }
}

/// The account that a user has of an offer. A hash and no MAC, for it outlives
/// every key; that somebody can compute it gives nothing, since no token of theirs
/// has it.
pub(crate) fn subject_account(network: Network, service: &str, offer: &str, subject: &[u8; 32]) -> AccountId {
    let mut hash = Sha256::new_with_prefix("l402/subject-account/v1");
    for part in [network.as_str().as_bytes(), service.as_bytes(), offer.as_bytes(), subject] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    AccountId::from(<[u8; 32]>::from(hash.finalize()))
}

/// Which user a request is of.
#[derive(Clone)]
pub(crate) struct SubjectFn(Arc<Closure>);

type Closure = dyn Fn(&Parts) -> Option<Subject> + Send + Sync;

impl SubjectFn {
    /// Nobody, where the closure panics.
    pub(crate) fn of(&self, head: &Parts) -> Option<Subject> {
        unless_panics(|| (self.0)(head)).flatten()
    }
}

impl fmt::Debug for SubjectFn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("by the request")
    }
}

impl GateBuilder {
    /// Admits the application's own users without a token, once an offer was paid
    /// for from a 402 of theirs; nobody unless set.
    ///
    /// The closure says which user a request is of, by its head (without an L402
    /// credential): **one that is authenticated already**, by a layer outside the
    /// gate that leaves its word in the request's extensions. Whoever can choose
    /// the name uses what others paid for. A request with an L402 credential is
    /// judged by that and not by this.
    ///
    /// Each user has an account for each offer of a fixed price. Paid again, counted uses
    /// are added up, and all of them last as long as those paid for last; a pass goes on
    /// where the one before ends. Passes are looked at first, then counted uses,
    /// in the order of the offers. An account is known by network, service, offer and
    /// user, whatever the keys: applications that share a ledger need services of
    /// different names. What is paid by Lightning is a token, which the
    /// user's client presents as anybody's does. A refund or a dispute revokes the
    /// user's account of that offer, and it stays revoked.
    ///
    /// It needs an issuer with a [checkout](crate::IssuerBuilder::with_checkout),
    /// and one that binds tokens to no condition
    /// ([`CaveatRegistry::bind`](crate::CaveatRegistry::bind)): an account of a
    /// user is bound to the user alone.
    ///
    /// ```
    /// # #[cfg(feature = "dev")] {
    /// use l402::checkout::{CheckoutConfig, Subject};
    /// use l402::{Access, DevBackend, Gate, Issuer, KeyRing, MemoryLedger, Network, Offer, Price, RootKey};
    ///
    /// #[derive(Clone)]
    /// struct UserId(u64); // what the layer that authenticates puts into the extensions
    ///
    /// # let issuer = Issuer::builder(KeyRing::new(RootKey::generate()), DevBackend::new())
    /// #     .with_network(Network::Regtest)
    /// #     .with_ledger(MemoryLedger::new())
    /// #     .with_checkout(CheckoutConfig::new("https://api.example.com/l402"))
    /// #     .build()?;
    /// let gate = Gate::builder(&issuer, "forecast", Offer::new(Price::sat(21), Access::uses(100)))
    ///     .with_subject(|head| head.extensions.get().map(|UserId(id)| Subject::new(id.to_be_bytes())))
    ///     .build()?;
    /// # }
    /// # Ok::<(), l402::Error>(())
    /// ```
    #[cfg_attr(docsrs, doc(cfg(feature = "offers")))]
    pub fn with_subject(
        mut self,
        subject: impl Fn(&Parts) -> Option<Subject> + Send + Sync + 'static,
    ) -> Self {
        self.subject = Some(SubjectFn(Arc::new(subject)));
        self
    }

    pub(crate) fn check_subject(&self) -> Result<(), Error> {
        let issuer = &self.issuer.0;
        let why = if self.subject.is_none() {
            return Ok(());
        } else if issuer.checkout.is_none() || issuer.meter.is_none() {
            "give the issuer `with_checkout` and `with_ledger`"
        } else if issuer.caveats.binds_any() {
            "the issuer's registry cannot bind them"
        } else {
            return Ok(());
        };
        let message = format!("gate `{}`: admits users from accounts: {why}", self.service);
        Err(Error::new(ErrorKind::Offer, message))
    }
}
