//! Who pays: a wallet, what it may spend, and where it keeps what it bought.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Clock, SystemClock, unix};

use super::budget::Budget;
use super::error::{Error, ErrorKind};
use super::known::Known;
use super::origin::Origin;
use super::quote::Quote;
use super::receipt::Receipt;
use super::store::{MemoryStore, Spent, StoreError, TokenStore};
use super::wallet::Wallet;

/// Longest operation of a token store.
const STORE_TIME_LIMIT: Duration = Duration::from_secs(30);

/// Pays what servers ask, within a [`Budget`], and keeps the tokens. Clones share
/// all of it.
///
/// ```
/// # #[cfg(feature = "dev")] {
/// use l402::client::{Budget, Client, Payer};
///
/// # let wallet = l402::DevBackend::new();
/// let budget = Budget::default().with_request_sat(50).with_day_sat(1_000);
/// let payer = Payer::new(wallet).with_budget(budget).allow_origin("https://api.example")?;
/// let client = Client::new(payer);
/// # }
/// # Ok::<(), l402::client::Error>(())
/// ```
#[derive(Clone)]
#[must_use]
pub struct Payer {
    pub(super) policy: Arc<Policy>,
    pub(super) store: Arc<dyn TokenStore>,
    pub(super) known: Arc<Known>,
}

type Confirms = Arc<dyn Fn(&Quote) -> bool + Send + Sync>;
type OnReceipt = Arc<dyn Fn(&Receipt) + Send + Sync>;

#[derive(Clone)]
pub(super) struct Policy {
    pub(super) wallet: Arc<dyn Wallet>,
    pub(super) budget: Budget,
    pub(super) origins: Vec<Origin>,
    pub(super) is_dry_run: bool,
    pub(super) confirms: Option<Confirms>,
    pub(super) on_receipt: Option<OnReceipt>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) replay_limit: usize,
}

impl Payer {
    /// Pays with this wallet, within the small default [`Budget`]. Tokens are
    /// kept in memory, until the process ends: see [`with_store`](Self::with_store).
    pub fn new(wallet: impl Wallet + 'static) -> Self {
        let policy = Policy {
            wallet: Arc::new(wallet),
            budget: Budget::default(),
            origins: Vec::new(),
            is_dry_run: false,
            confirms: None,
            on_receipt: None,
            clock: Arc::new(SystemClock),
            replay_limit: 64 * 1024,
        };
        Self { policy: Arc::new(policy), store: Arc::new(MemoryStore::new()), known: Arc::default() }
    }

    /// Spends no more than this. Where the wallet does not [limit its
    /// fees](Wallet::limits_fees), a fee may go beyond it.
    pub fn with_budget(mut self, budget: Budget) -> Self {
        self.policy_mut().budget = budget;
        self
    }

    /// Keeps tokens, payments and what was spent here. Whoever shares the store
    /// shares the sums, and so the budget, and has to share the wallet: what was
    /// begun is looked up there, and paid where it was not.
    pub fn with_store(mut self, store: impl TokenStore + 'static) -> Self {
        self.store = Arc::new(store);
        self.known = Arc::default();
        self
    }

    /// Pays this origin, as in `https://api.example`, and the others that are
    /// named so, and nobody else. Without any, every origin is paid.
    ///
    /// # Errors
    /// The text is no origin.
    pub fn allow_origin(mut self, origin: &str) -> Result<Self, Error> {
        let origin = Origin::parse(origin)?;
        self.policy_mut().origins.push(origin);
        Ok(self)
    }

    /// Asks before each payment, which is not made where the answer is no. The
    /// closure runs on a thread for work that blocks, so it may ask a person.
    pub fn with_confirmation(mut self, confirms: impl Fn(&Quote) -> bool + Send + Sync + 'static) -> Self {
        self.policy_mut().confirms = Some(Arc::new(confirms));
        self
    }

    /// Pays nothing: a request that has to be paid for fails with
    /// [`ErrorKind::DryRun`], and [`Error::quote`] says what it would have cost.
    /// Tokens that are held are used.
    pub fn dry_run(mut self) -> Self {
        self.policy_mut().is_dry_run = true;
        self
    }

    /// Tells this closure of every payment, at once and within the request: it
    /// must not block.
    pub fn on_receipt(mut self, told: impl Fn(&Receipt) + Send + Sync + 'static) -> Self {
        self.policy_mut().on_receipt = Some(Arc::new(told));
        self
    }

    /// Tells the time by this clock.
    pub fn with_clock(mut self, clock: impl Clock + 'static) -> Self {
        self.policy_mut().clock = Arc::new(clock);
        self
    }

    /// How much of a streaming request body is recorded, so that it can be sent
    /// again once it is paid: 64 KiB unless set. A request whose body went
    /// beyond it before the server answered is not paid for.
    pub fn with_replay_limit(mut self, bytes: usize) -> Self {
        self.policy_mut().replay_limit = bytes;
        self
    }

    fn policy_mut(&mut self) -> &mut Policy {
        Arc::make_mut(&mut self.policy)
    }

    /// What was paid, the latest first, as far back as the store keeps it.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn receipts(&self) -> Result<impl Iterator<Item = Receipt> + use<>, Error> {
        let purchases = in_time(self.store.all()).await?;
        Ok(purchases.into_iter().filter_map(|purchase| Receipt::of(&purchase)))
    }

    /// What was spent, with what is reserved for payments under way. Nothing is
    /// ever forgotten of it.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn spent(&self) -> Result<Spent, Error> {
        in_time(self.store.spent("", self.now())).await
    }

    /// Unix seconds.
    pub(super) fn now(&self) -> u64 {
        unix(self.policy.clock.now())
    }
}

/// What the store answers, in bounded time.
pub(super) async fn in_time<T>(operation: impl Future<Output = Result<T, StoreError>>) -> Result<T, Error> {
    let error = |cause| {
        let what = "the token store is unavailable: nothing is paid without it";
        Error::new(ErrorKind::Store, what).with_source(cause)
    };
    match tokio::time::timeout(STORE_TIME_LIMIT, operation).await {
        Ok(answer) => answer.map_err(error),
        Err(_) => Err(error(StoreError::new("it did not answer in time"))),
    }
}

impl<W: Wallet + 'static> From<W> for Payer {
    fn from(wallet: W) -> Self {
        Self::new(wallet)
    }
}

impl fmt::Debug for Payer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Payer")
            .field("wallet", &self.policy.wallet)
            .field("budget", &self.policy.budget)
            .field("origins", &self.policy.origins)
            .field("is_dry_run", &self.policy.is_dry_run)
            .finish_non_exhaustive()
    }
}
