//! What all gates of a server share.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;

use crate::accounts::Accounts;
use crate::answer::Refused;
use crate::backend::{self, BackendError, Capabilities, LookUpBy, Network, PaymentBackend};
use crate::caveat::CaveatRegistry;
use crate::clock::{Clock, unix};
use crate::entropy::Entropy;
use crate::error::Error;
use crate::event::Events;
use crate::exchange::Exchange;
use crate::issuer_builder::IssuerBuilder;
use crate::keys::{KeyRing, SigningKeys};
use crate::ledger::{Account, LedgerError, Meter, OpenReservation, Revocation, Revocations};
use crate::limit::Limits;
#[cfg(feature = "offers")]
use crate::macaroon::TokenId;
use crate::macaroon::Verified;
use crate::payment::{Payments, Unconfirmed};
use crate::preimage::PaymentHash;
use crate::refusal::Refusal;

/// How long a backend may take to say that it is well.
const HEALTH_TIME_LIMIT: Duration = Duration::from_secs(5);

/// Issues and honours the tokens of a server: its keys, network, payment
/// backend, ledger, conditions and clock. Two issuers with the same keys are
/// the same issuer to a token: give each service to one of them. Running, shared and cheap to clone;
/// its gates are made with [`Gate::new`](crate::Gate::new).
///
/// ```
/// # #[cfg(feature = "dev")] {
/// use l402::{DevBackend, Issuer, KeyRing, MemoryLedger, Network, RootKey};
///
/// let keys = KeyRing::new(RootKey::generate()); // `KeyRing::from_env("L402_ROOT_KEYS")?` in production
/// let issuer = Issuer::builder(keys, DevBackend::new())
///     .with_network(Network::Regtest)
///     .with_ledger(MemoryLedger::new())
///     .build()?;
/// # }
/// # Ok::<(), l402::Error>(())
/// ```
#[derive(Clone)]
pub struct Issuer(pub(crate) Arc<IssuerInner>);

pub(crate) struct IssuerInner {
    pub(crate) network: Network,
    pub(crate) ledger_instance: Option<[u8; 16]>,
    /// Read by every admission without a lock.
    pub(crate) keys: ArcSwap<SigningKeys>,
    pub(crate) revocations: Revocations,
    pub(crate) backend: Arc<dyn PaymentBackend>,
    pub(crate) capabilities: Capabilities,
    pub(crate) meter: Option<Arc<Meter>>,
    pub(crate) caveats: CaveatRegistry,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) challenge_lifetime: Duration,
    pub(crate) limits: Limits,
    pub(crate) payments: Payments,
    /// Where tokens of accounts are known.
    pub(crate) accounts: Option<Accounts>,
    #[cfg(feature = "offers")]
    pub(crate) checkout: Option<crate::checkout::Counter>,
    pub(crate) exchange: Option<Exchange>,
    pub(crate) events: Events,
    /// What people see, and the path of its form.
    #[cfg(feature = "page")]
    pub(crate) page: Option<(Arc<str>, Arc<crate::page::Page>)>,
    /// The service names that gates and their builders have.
    pub(crate) names: Mutex<HashSet<String>>,
}

impl IssuerInner {
    /// The ledger's, or this process's own where there is no ledger.
    pub(crate) fn revocations(&self) -> &Revocations {
        self.meter.as_ref().map_or(&self.revocations, |meter| meter.ledger.revocations())
    }

    /// Asks the backend whether this was paid, where that is not known.
    pub(crate) async fn confirm(&self, payment: &Unconfirmed) -> Result<(), Refused> {
        // Sold on another backend: this one knows nothing of it.
        if payment.handle.is_none() && self.capabilities.look_up() == Some(LookUpBy::Handle) {
            return Err(Refusal::NotPaid.into());
        }
        self.payments.confirm(payment, &*self.backend, &*self.clock, &self.limits).await
    }

    /// Stands for a token of an account that is made now.
    #[cfg(feature = "offers")]
    pub(crate) fn token_id_of_now(&self) -> TokenId {
        TokenId::new(self.keys.load().signing(true).id(), unix(self.clock.now()), 0, [0; 21])
    }

    /// Answers the challenge of this token to nobody any more.
    pub(crate) fn forget_pending(&self, token: &Verified<'_>, now: SystemTime) {
        let Some(reuse) = &self.limits.reuse else { return };
        // One that is older cannot be pending, and costs no lock.
        let oldest = token.token_id().issued_at().saturating_add(self.challenge_lifetime.as_secs() + 60);
        if unix(now) <= oldest {
            reuse.forget(token.payment_hash());
        }
    }
}

impl Issuer {
    /// Begins an issuer of mainnet tokens, without a ledger.
    pub fn builder(keys: KeyRing, backend: impl PaymentBackend + 'static) -> IssuerBuilder {
        IssuerBuilder::new(keys, backend)
    }

    /// Everything a first try needs: regtest, a fresh key, a [`MemoryLedger`](crate::MemoryLedger),
    /// and a line on standard error that says so.
    ///
    /// Whoever reaches the wallet pays with play money, and a restart forgets
    /// every token.
    #[cfg(feature = "dev")]
    #[cfg_attr(docsrs, doc(cfg(feature = "dev")))]
    pub fn dev(wallet: &crate::DevBackend) -> Self {
        crate::warn::warn(format_args!(
            "development issuer: regtest play money, a fresh key, uses counted in memory"
        ));
        Self::builder(KeyRing::new(crate::RootKey::generate()), wallet.clone())
            .with_network(Network::Regtest)
            .with_ledger(crate::MemoryLedger::new())
            .build()
            .expect("one fresh key, on the network of the backend")
    }

    /// Changes the keys while the server runs: tokens are signed with the
    /// ring's first key from now on, and honoured if any of its keys signed them.
    ///
    /// # Errors
    /// Two keys of the ring have the same id. The keys stay as they were.
    pub fn set_keys(&self, keys: &KeyRing) -> Result<(), Error> {
        let keys = SigningKeys::new(keys, self.0.network, self.0.ledger_instance)?;
        self.0.keys.store(Arc::new(keys));
        Ok(())
    }

    /// Revokes tokens: their holders are answered 402 from now on. The ledger
    /// remembers it as long as it remembers uses, and without a ledger this
    /// process does.
    ///
    /// Without a durable ledger a restart forgets it, and honours a revoked
    /// pass again: change the keys, or sell short passes.
    ///
    /// What would be revoked as soon as it is sold is not sold: while the key
    /// that signs is revoked, or a service up to a moment to come, who asks for
    /// an invoice is answered 500. Change the keys first
    /// ([`set_keys`](Self::set_keys)), then revoke the old one.
    ///
    /// # Errors
    /// The ledger could not store it. This process honours the tokens no more
    /// all the same.
    pub async fn revoke(&self, revocation: Revocation) -> Result<(), LedgerError> {
        self.0.revocations().add(&revocation);
        let Some(meter) = &self.0.meter else { return Ok(()) };
        let ledger = meter.ledger.clone();
        meter.run_to_end(async move { ledger.revoke(&revocation).await }).await
    }

    /// What the token with this payment hash has had; `None` where it was
    /// never used, or is not metered.
    ///
    /// # Errors
    /// The ledger could not be read.
    pub async fn account(&self, token: PaymentHash) -> Result<Option<Account>, LedgerError> {
        let Some(meter) = &self.0.meter else { return Ok(None) };
        let ledger = meter.ledger.clone();
        meter.run_to_end(async move { ledger.account(&token.into()).await }).await
    }

    /// The reservations that no request has ended yet. One past its lease was
    /// left by a process that died: it counts as spent.
    ///
    /// # Errors
    /// The ledger could not be read.
    pub async fn open_reservations(&self) -> Result<Vec<OpenReservation>, LedgerError> {
        let Some(meter) = &self.0.meter else { return Ok(Vec::new()) };
        let ledger = meter.ledger.clone();
        meter.run_to_end(async move { ledger.open_reservations().await }).await
    }

    /// Whether the backend can be reached and takes our credentials: for a
    /// readiness probe. It may take 5 seconds. A server whose backend is down
    /// still admits what was paid for.
    ///
    /// # Errors
    /// Why it cannot be used, or
    /// [`Unsupported`](crate::BackendErrorKind::Unsupported) where the backend
    /// does not tell.
    pub async fn check_backend(&self) -> Result<(), BackendError> {
        backend::call(HEALTH_TIME_LIMIT, || self.0.backend.check_health()).await
    }

    /// Whether a token of an account may come as a `Bearer`.
    pub(crate) fn takes_bearers(&self) -> bool {
        self.0.accounts.is_some()
    }
}

impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issuer")
            .field("network", &self.0.network)
            .field("backend", &self.0.backend)
            .finish_non_exhaustive()
    }
}
