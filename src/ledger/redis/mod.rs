//! The ledger of several servers, in Redis.

mod link;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use redis::{Client, FromRedisValue, Script, ServerErrorKind};
use sha2::{Digest, Sha256};

use self::link::{Link, check_settings};
use super::shared::{MARGIN, MAX_LISTED, Refresh, from_row, reserved, to_row, unreadable};
use super::{
    Account, AccountId, LEASE, Ledger, LedgerError, OpenReservation, ReservationId, Reserve, Reserved,
    Revocation, Revocations,
};
use crate::error::{Error, ErrorKind};

/// The largest number that is exact in a script, and the most that is asked
/// for. One less is the most that is sold.
const MAX: u64 = (1 << 53) - 1;
const SCRIPT: &str = include_str!("script.lua");
const PREFIX: &str = "{l402}";

/// Counts in Redis (6.2 or later; tested with 7.0), where several servers share them.
/// Each operation is one script, which the server runs as a whole.
///
/// ```no_run
/// # async fn f() -> Result<(), l402::Error> {
/// use l402::RedisLedger;
///
/// let ledger = RedisLedger::connect("redis://localhost").await?;
/// # Ok(())
/// # }
/// ```
///
/// Sold counts are kept up to 2^53 - 2; more than that was sold counts as that.
///
/// # What the server must be set to
///
/// | setting | otherwise |
/// |---|---|
/// | `appendonly yes` | a restart takes back what was used since the last snapshot, and it is sold again: refused when connecting |
/// | `appendfsync always` | with `everysec`, the machine's crash (not the process's) takes back up to a second of uses |
/// | `maxmemory-policy noeviction`, or no `maxmemory` | counts are evicted, and sold again: policies that evict keys without an expiry are refused when connecting |
/// | one primary | a replica that takes over has not all that was confirmed, and those uses are sold again |
///
/// Where the store is emptied, the metered tokens that were counted in it end
/// with it rather than being sold twice: they are bound to an id that is kept
/// beside the counts ([`Ledger::instance`]). A running server then answers 503
/// for them, and 402 once it is started anew. Revocations are lost with the
/// store; take a key out of the ring where that must not be.
///
/// # How it behaves
///
/// - **Outages.** An operation takes at most 5 seconds and then fails; the next
///   one connects again. Nothing is admitted meanwhile but passes.
/// - **Revocations** of other servers are in force after 5 seconds at most.
/// - **Time** comes from the servers that use it. Keep their clocks together
///   within a minute: what one has purged, all refuse.
/// - **TLS.** For `rediss://`, add the `redis` crate to your own manifest with
///   its feature `tokio-rustls-comp` or `tokio-native-tls-comp`.
/// - **Cluster.** All keys have one hash tag and so one slot, but the client
///   does not follow redirections: connect to the node that has it.
pub struct RedisLedger {
    store: Arc<Store>,
    _refresh: Refresh,
}

/// Settings of a [`RedisLedger`] that is not connected yet.
#[derive(Clone)]
pub struct RedisLedgerBuilder {
    url: String,
    prefix: String,
    accepts_loss: bool,
}

impl RedisLedger {
    /// Connects to `redis://user:password@host:port/database` or
    /// `redis+unix:///path`.
    ///
    /// # Errors
    /// The URL cannot be read, the server cannot be reached, or its settings
    /// would lose counts.
    ///
    /// # Panics
    /// Outside a tokio runtime with time and I/O enabled.
    pub async fn connect(url: &str) -> Result<Self, Error> {
        Self::builder(url).connect().await
    }

    /// Settings that differ from those of [`connect`](Self::connect).
    pub fn builder(url: &str) -> RedisLedgerBuilder {
        RedisLedgerBuilder { url: url.into(), prefix: PREFIX.into(), accepts_loss: false }
    }
}

impl RedisLedgerBuilder {
    /// What all keys begin with, `{l402}` by default. In a cluster it must have
    /// a hash tag: `{shop}`.
    pub fn with_prefix(mut self, prefix: &str) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Connects without looking at the server's settings. What a restart or an
    /// eviction takes back is sold again.
    pub fn dangerous_accept_lost_counts(mut self) -> Self {
        self.accepts_loss = true;
        self
    }

    /// Connects.
    ///
    /// # Errors
    /// As [`RedisLedger::connect`].
    ///
    /// # Panics
    /// Outside a tokio runtime with time and I/O enabled.
    pub async fn connect(self) -> Result<RedisLedger, Error> {
        let error = |message: &str| Error::new(ErrorKind::Ledger, message);
        // The parser's message may quote a part of a password.
        let client = Client::open(self.url.as_str())
            .map_err(|_| error("the Redis URL cannot be read, or asks for TLS that is not built in"))?;
        let link = Link::new(client);
        let failed = |err| error("the Redis ledger could not be opened").with_source(err);
        if !self.accepts_loss {
            let settings = link.settings().await.map_err(failed)?;
            check_settings(&settings).map_err(failed)?;
        }
        let instance = link.instance(&self.prefix).await.map_err(failed)?;
        let store = Arc::new(Store {
            link,
            instance,
            prefix: self.prefix,
            script: Script::new(SCRIPT),
            revocations: Revocations::new(),
        });
        store.load_revocations().await.map_err(failed)?;
        let refresh = Refresh::start(&store, |store| async move { store.load_revocations().await });
        Ok(RedisLedger { store, _refresh: refresh })
    }
}

impl fmt::Debug for RedisLedgerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisLedgerBuilder")
            .field("url", &"[redacted]")
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for RedisLedger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisLedger").finish_non_exhaustive()
    }
}

struct Store {
    link: Link,
    instance: [u8; 16],
    prefix: String,
    script: Script,
    revocations: Revocations,
}

/// What a script takes: text, and numbers as text.
type Args<'a> = &'a [&'a str];

/// A number that a script takes exactly.
fn clamp(number: u64) -> String {
    number.min(MAX).to_string()
}

/// What is sold: beyond that range less is, and never more.
fn clamp_sold(units: u64) -> String {
    units.min(MAX - 1).to_string()
}

impl Store {
    async fn call<T: FromRedisValue>(
        &self,
        operation: &str,
        account: Option<AccountId>,
        args: Args<'_>,
    ) -> Result<T, LedgerError> {
        let account = account.map(|account| hex::encode(account.0)).unwrap_or_default();
        let key = |name: &str| format!("{}:{name}", self.prefix);
        let keys = [
            key("instance"),
            key(&format!("account:{account}")),
            key("expiries"),
            key("open"),
            key("purged"),
            key("revocations"),
        ];
        let command = |verb: &str, script: &str| {
            let mut command = redis::cmd(verb);
            command.arg(script).arg(keys.len()).arg(&keys);
            command.arg(operation).arg(hex::encode(self.instance)).arg(&account).arg(args);
            command
        };
        let run = self.link.run(async |connection| {
            let known = command("EVALSHA", self.script.get_hash()).query_async(connection).await;
            match known {
                // Nothing was run. This runs it, and the server knows it from then on.
                Err(err) if err.kind() == redis::ErrorKind::Server(ServerErrorKind::NoScript) => {
                    command("EVAL", SCRIPT).query_async(connection).await
                }
                answer => answer,
            }
        });
        run.await
    }

    async fn load_revocations(&self) -> Result<(), LedgerError> {
        let all: Vec<(String, u64)> = self.call("revocations", None, &[]).await?;
        let read = |(field, issued_before): (String, u64)| {
            let (kind, subject) = field.split_once(':')?;
            from_row((kind.parse().ok()?, hex::decode(subject).ok()?, issued_before)).ok()
        };
        let all: Option<Vec<_>> = all.into_iter().map(read).collect();
        self.revocations.load(all.ok_or_else(|| unreadable("a revocation"))?);
        Ok(())
    }
}

#[async_trait]
impl Ledger for RedisLedger {
    fn instance(&self) -> Option<[u8; 16]> {
        Some(self.store.instance)
    }

    fn revocations(&self) -> &Revocations {
        &self.store.revocations
    }

    async fn reserve(&self, ask: &Reserve) -> Result<Reserved, LedgerError> {
        let args: Args<'_> = &[
            &hex::encode(ask.id.nonce()),
            &clamp(ask.units),
            &clamp_sold(ask.limit),
            &clamp_sold(ask.ceiling),
            &clamp(ask.expires_at),
            &clamp(ask.now.saturating_add(LEASE.as_secs())),
            &clamp(ask.now.saturating_sub(MARGIN)),
        ];
        reserved(self.store.call::<i64>("reserve", Some(ask.id.account()), args).await?)
    }

    async fn commit(&self, id: &ReservationId) -> Result<(), LedgerError> {
        self.store.call("commit", Some(id.account()), &[&hex::encode(id.nonce())]).await
    }

    async fn release(&self, id: &ReservationId, now: u64) -> Result<(), LedgerError> {
        let keep_until = clamp(now.saturating_add(LEASE.as_secs()));
        let args: Args<'_> = &[&hex::encode(id.nonce()), &clamp(now), &keep_until];
        self.store.call("release", Some(id.account()), args).await
    }

    async fn credit(
        &self,
        account: &AccountId,
        units: u64,
        event_id: &str,
        expires_at: u64,
    ) -> Result<(), LedgerError> {
        let event = hex::encode(Sha256::digest(event_id.as_bytes()));
        let args: Args<'_> = &[&event, &clamp_sold(units), &clamp(expires_at)];
        self.store.call("credit", Some(*account), args).await
    }

    async fn account(&self, account: &AccountId) -> Result<Option<Account>, LedgerError> {
        let columns: Vec<u64> = self.store.call("account", Some(*account), &[]).await?;
        match columns[..] {
            [] => Ok(None),
            [sold, credited, used, expires_at] => {
                Ok(Some(Account { limit: sold.saturating_add(credited), used, expires_at }))
            }
            _ => Err(unreadable("an account")),
        }
    }

    async fn revoke(&self, revocation: &Revocation) -> Result<(), LedgerError> {
        let (kind, subject, issued_before) = to_row(revocation);
        let field = format!("{kind}:{}", hex::encode(subject));
        let args: Args<'_> = &[&field, &clamp(issued_before)];
        let () = self.store.call("revoke", None, args).await?;
        self.store.revocations.add(revocation);
        Ok(())
    }

    /// The 10,000 whose leases end first.
    async fn open_reservations(&self) -> Result<Vec<OpenReservation>, LedgerError> {
        let open: Vec<(String, u64)> = self.store.call("open", None, &[&MAX_LISTED.to_string()]).await?;
        let read = |(member, lease_until): (String, u64)| {
            let mut parts = member.split(':');
            let (mut account, mut nonce) = ([0; 32], [0; 16]);
            hex::decode_to_slice(parts.next()?, &mut account).ok()?;
            hex::decode_to_slice(parts.next()?, &mut nonce).ok()?;
            let id = ReservationId::new(AccountId(account), nonce);
            Some(OpenReservation { id, units: parts.next()?.parse().ok()?, lease_until })
        };
        open.into_iter().map(|row| read(row).ok_or_else(|| unreadable("a reservation"))).collect()
    }
}
