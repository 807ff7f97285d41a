//! The proof that a gate admitted a request.

use std::fmt;
use std::future::{pending, poll_fn};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::clock::Clock;
use crate::credential::Presented;
use crate::deadline::Deadline;
use crate::ledger::Debit;
use crate::macaroon::TokenId;
use crate::preimage::PaymentHash;
use crate::price::Amount;

/// Proof that a gate admitted this request. A gate puts it into the request's
/// extensions, and nothing else makes one (but `Grant::test`, for tests).
#[derive(Clone)]
pub struct Grant {
    pub(crate) service: Arc<str>,
    pub(crate) basis: Basis,
    pub(crate) token: Option<GrantedToken>,
    /// What this gate or one further out took: one further in takes no more.
    pub(crate) taken: Taken,
    /// Kept for a gate further in, which judges it again.
    pub(crate) presented: Option<Presented>,
    /// By which the token expires.
    pub(crate) clock: Arc<dyn Clock>,
}

/// What was taken from a token for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// Nothing: a gate further in may take something.
    Nothing,
    /// Nothing, for the token is a pass and has been checked.
    Pass,
    /// These units, under the ceiling that the holder left.
    Units { units: u64, ceiling: u64 },
}

impl Taken {
    pub(crate) fn of(debit: Debit) -> Self {
        match debit.units {
            0 => Self::Nothing,
            units => Self::Units { units, ceiling: debit.ceiling },
        }
    }

    /// Whether it is as much as this debit would be.
    pub(crate) fn covers(self, debit: Option<Debit>) -> bool {
        match (self, debit) {
            (_, None) => true,
            (Self::Units { units, ceiling }, Some(debit)) => debit.units <= units && debit.ceiling >= ceiling,
            (Self::Nothing | Self::Pass, Some(debit)) => debit.units == 0,
        }
    }
}

/// What the grant says of the token it rests on.
#[derive(Clone, Debug)]
pub(crate) struct GrantedToken {
    pub(crate) offer: Arc<str>,
    pub(crate) payment_hash: PaymentHash,
    pub(crate) token_id: TokenId,
    pub(crate) valid_until: u64,
    /// What it was sold for, where its offer is priced by the request.
    pub(crate) sold_for: Option<Amount>,
    pub(crate) remaining: Option<u64>,
    pub(crate) tier: u8,
    pub(crate) capabilities: CapabilitySet,
}

/// Which of the capabilities that a gate knows a token has.
#[derive(Clone, Default)]
pub(crate) struct CapabilitySet {
    /// At most 64 names.
    pub(crate) known: Arc<[String]>,
    /// Bit `i` stands for `known[i]`.
    pub(crate) held: u64,
}

/// Why a request was admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Basis {
    /// The client showed the preimage of its token's invoice.
    Preimage,
    /// The token came alone, and the backend says that its invoice was paid: see
    /// [`IssuerBuilder::with_settled_tokens`](crate::IssuerBuilder::with_settled_tokens).
    Settled,
    /// The token is one of an account, which was paid for by any method: see
    /// `l402::checkout`.
    Account,
    /// The application says which user asks, and the user's account was paid for:
    /// see `GateBuilder::with_subject`.
    Subject,
    /// The price of the request is [`Price::Free`](crate::Price::Free).
    FreePrice,
    /// It is one of the requests that the client has free: see
    /// [`GateBuilder::with_free_requests`](crate::GateBuilder::with_free_requests).
    FreeTier,
    /// The closure of [`GateBuilder::free_if`](crate::GateBuilder::free_if)
    /// lets the request pass.
    FreeIf,
    /// The gate is in [dry run](crate::GateBuilder::dangerous_dry_run), and
    /// would have refused the request.
    DryRun,
}

impl Basis {
    pub(crate) fn is_paid(self) -> bool {
        match self {
            Self::Preimage | Self::Settled | Self::Account | Self::Subject => true,
            Self::FreePrice | Self::FreeIf | Self::FreeTier | Self::DryRun => false,
        }
    }

    /// A stable name, for programs.
    pub fn code(self) -> &'static str {
        match self {
            Self::Preimage => "preimage",
            Self::Settled => "settled",
            Self::Account => "account",
            Self::Subject => "subject",
            Self::FreePrice => "free_price",
            Self::FreeIf => "free_if",
            Self::FreeTier => "free_tier",
            Self::DryRun => "dry_run",
        }
    }

    /// Whether the next client, who asks for the same, may have to pay: the
    /// answer is not a shared cache's to give.
    pub(crate) fn is_private(self) -> bool {
        match self {
            Self::Preimage
            | Self::Settled
            | Self::Account
            | Self::Subject
            | Self::FreeIf
            | Self::FreeTier
            | Self::DryRun => true,
            Self::FreePrice => false,
        }
    }
}

impl Grant {
    /// The name of the service whose gate admitted the request.
    pub fn service(&self) -> &str {
        &self.service
    }

    /// Why the request was admitted.
    pub fn basis(&self) -> Basis {
        self.basis
    }

    /// Whether somebody paid for it.
    pub fn is_paid(&self) -> bool {
        self.basis.is_paid()
    }

    /// The id of the offer the token was bought as; `seller/id` where another
    /// service sold it. `None` for a request that cost nothing.
    pub fn offer(&self) -> Option<&str> {
        self.token.as_ref().map(|token| &*token.offer)
    }

    /// The payment hash of the token's invoice: the account of its uses. Where no
    /// invoice was paid, the account itself.
    pub fn payment_hash(&self) -> Option<PaymentHash> {
        self.token.as_ref().map(|token| token.payment_hash)
    }

    /// The id of the token; `None` without one.
    pub fn token_id(&self) -> Option<TokenId> {
        self.token.as_ref().filter(|_| self.basis != Basis::Subject).map(|token| token.token_id)
    }

    /// How many uses are left after this one; `None` where uses are not counted.
    pub fn remaining(&self) -> Option<u64> {
        self.token.as_ref()?.remaining
    }

    /// The first moment at which the token is no longer good.
    pub fn expires_at(&self) -> Option<SystemTime> {
        UNIX_EPOCH.checked_add(Duration::from_secs(self.token.as_ref()?.valid_until))
    }

    /// Completes when the token is no longer good, by the issuer's clock; never
    /// for a request that cost nothing. A connection that outlives its request
    /// ends with it:
    ///
    /// ```
    /// # #[cfg(feature = "axum")] {
    /// use axum::extract::ws::{WebSocket, WebSocketUpgrade};
    /// use axum::response::Response;
    /// use l402::Grant;
    ///
    /// async fn ticks(upgrade: WebSocketUpgrade, grant: Grant) -> Response {
    ///     upgrade.on_upgrade(async move |mut socket: WebSocket| {
    ///         loop {
    ///             tokio::select! {
    ///                 () = grant.expired() => break,
    ///                 Some(Ok(message)) = socket.recv() => { socket.send(message).await.ok(); }
    ///                 else => break,
    ///             }
    ///         }
    ///     })
    /// }
    /// # let _: axum::Router = axum::Router::new().route("/", axum::routing::any(ticks));
    /// # }
    /// ```
    ///
    /// # Cancel safety
    /// Dropped, nothing is lost: ask again.
    ///
    /// # Panics
    /// Outside a tokio runtime with time enabled.
    pub async fn expired(&self) {
        match self.deadline() {
            Some(mut deadline) => poll_fn(|cx| deadline.poll(cx)).await,
            None => pending().await,
        }
    }

    /// When the token is no longer good; `None` without one.
    pub(crate) fn deadline(&self) -> Option<Deadline> {
        Some(Deadline::new(self.clock.clone(), self.expires_at()?))
    }

    /// The tier of the token; 0 without one.
    pub fn tier(&self) -> u8 {
        self.token.as_ref().map_or(0, |token| token.tier)
    }

    /// Whether the token has this capability, as far as the gate knows it from
    /// its offers and requirements.
    pub fn has_capability(&self, capability: &str) -> bool {
        let Some(set) = self.token.as_ref().map(|token| &token.capabilities) else { return false };
        set.known.iter().enumerate().any(|(i, name)| set.held & (1 << i) != 0 && name == capability)
    }
}

impl fmt::Debug for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grant")
            .field("service", &self.service)
            .field("basis", &self.basis)
            .field("token", &self.token)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for CapabilitySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set()
            .entries(
                self.known
                    .iter()
                    .enumerate()
                    .filter(|(i, _)| self.held & (1 << i) != 0)
                    .map(|(_, name)| name),
            )
            .finish()
    }
}

/// Makes a [`Grant`] without a payment, to test a handler.
///
/// ```
/// use l402::Grant;
/// let grant = Grant::test().with_remaining(3).build();
/// assert_eq!(grant.remaining(), Some(3));
/// assert!(grant.is_paid());
/// ```
#[cfg(feature = "test-util")]
#[cfg_attr(docsrs, doc(cfg(feature = "test-util")))]
#[derive(Clone, Debug)]
#[must_use]
pub struct TestGrant {
    service: String,
    remaining: Option<u64>,
    valid_until: u64,
    tier: u8,
    capabilities: Vec<String>,
}

#[cfg(feature = "test-util")]
impl Grant {
    /// Begins a paid grant of the service `test`, tier 0, without capabilities
    /// or a count, that expires in the year 2100.
    pub fn test() -> TestGrant {
        TestGrant {
            service: "test".into(),
            remaining: None,
            valid_until: 4_102_444_800,
            tier: 0,
            capabilities: Vec::new(),
        }
    }
}

#[cfg(feature = "test-util")]
impl TestGrant {
    /// The name of the service.
    pub fn with_service(mut self, service: &str) -> Self {
        service.clone_into(&mut self.service);
        self
    }

    /// How many uses are left.
    pub fn with_remaining(mut self, remaining: u64) -> Self {
        self.remaining = Some(remaining);
        self
    }

    /// When the token expires, in whole seconds.
    pub fn with_expires_at(mut self, expires_at: SystemTime) -> Self {
        self.valid_until = crate::clock::unix(expires_at);
        self
    }

    /// The tier of the token.
    pub fn with_tier(mut self, tier: u8) -> Self {
        self.tier = tier;
        self
    }

    /// The capabilities of the token, 64 at most.
    pub fn with_capabilities(mut self, capabilities: &[&str]) -> Self {
        self.capabilities = capabilities.iter().map(|&name| name.to_owned()).collect();
        self
    }

    /// The grant.
    pub fn build(self) -> Grant {
        let token = GrantedToken {
            offer: "default".into(),
            payment_hash: [0; 32].into(),
            token_id: [0; 32].into(),
            valid_until: self.valid_until,
            sold_for: None,
            remaining: self.remaining,
            tier: self.tier,
            capabilities: CapabilitySet { known: self.capabilities.into(), held: u64::MAX },
        };
        Grant {
            service: self.service.into(),
            basis: Basis::Preimage,
            token: Some(token),
            taken: Taken::Pass,
            presented: None,
            clock: Arc::new(crate::SystemClock),
        }
    }
}
