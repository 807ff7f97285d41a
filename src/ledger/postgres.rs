//! The ledger of several servers, in PostgreSQL.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime};
use sha2::{Digest, Sha256};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Config, NoTls, Row};

use super::shared::{MARGIN, MAX_LISTED, Refresh, TIME_LIMIT, from_row, reserved, to_row, unreadable};
use super::{
    Account, AccountId, LEASE, Ledger, LedgerError, OpenReservation, ReservationId, Reserve, Reserved,
    Revocation, Revocations,
};
use crate::error::{Error, ErrorKind};

/// The schema's versions: each is run once, in this order.
const MIGRATIONS: [&str; 1] = [include_str!("postgres.sql")];
const CONNECTIONS: usize = 8;
/// Most units that are sold: one less than the most that can be asked for.
const MOST: i64 = i64::MAX - 1;

/// Counts in PostgreSQL (12 or later; tested with 15), where several servers share them. Each
/// operation is one statement, and one round trip.
///
/// ```no_run
/// # async fn f() -> Result<(), l402::Error> {
/// use l402::PostgresLedger;
///
/// let ledger = PostgresLedger::connect("postgres://shop@localhost/shop").await?;
/// # Ok(())
/// # }
/// ```
///
/// Its tables and functions are made and migrated when it connects, in a
/// schema `l402` of the database: the first connection needs the right to
/// create it, later ones the right to use it. Sold counts are kept up to
/// 2^63 - 2; more than that was sold counts as that.
///
/// - **Durability** is the server's: with `fsync` on, what was counted survives
///   a crash. A session whose `synchronous_commit` is off has it on for these
///   counts. Where a standby takes over that had not all that was confirmed, or
///   an older backup is restored, uses since then are sold again; use
///   synchronous replication where that matters.
/// - **Speed.** Debits of one account wait for each other's commit, and so for
///   the disk; those of different accounts do not.
/// - **Outages.** An operation takes at most 5 seconds and then fails; the next
///   one connects again. Nothing is admitted meanwhile but passes.
/// - **Revocations** of other servers are in force after 5 seconds at most.
/// - **Time** comes from the servers that use it. Keep their clocks together
///   within a minute: what one has purged, all refuse.
pub struct PostgresLedger {
    store: Arc<Store>,
    _refresh: Refresh,
}

struct Store {
    pool: Pool,
    revocations: Revocations,
}

type Params<'a> = &'a [(&'a (dyn ToSql + Sync), Type)];

impl PostgresLedger {
    /// Connects without TLS, with up to 8 connections, and makes or migrates
    /// the schema. Servers that start at once do not disturb each other.
    ///
    /// The URL is `postgres://user:password@host/database?key=value`, or
    /// `key=value` pairs. Anything but a Unix socket or a loopback address has
    /// to say `sslmode=disable`, for a network that is private; otherwise make
    /// a pool with the TLS of your choice for [`from_pool`](Self::from_pool).
    /// So does whoever connects through `PgBouncer`, which refuses the
    /// `statement_timeout` that is set here.
    ///
    /// # Errors
    /// The URL cannot be read, the connection would have to be encrypted, the
    /// server cannot be reached, or the schema is of a later version.
    ///
    /// # Panics
    /// Outside a tokio runtime with time and I/O enabled.
    pub async fn connect(url: &str) -> Result<Self, Error> {
        // The parser's message may quote a part of a password.
        let mut config: Config = url.parse().map_err(|_| error("the PostgreSQL URL cannot be read"))?;
        let may_be_plain = match config.get_ssl_mode() {
            SslMode::Disable => true,
            SslMode::Prefer => is_local(&config),
            _ => false,
        };
        if !may_be_plain {
            return Err(error(
                "the connection to PostgreSQL would not be encrypted: say sslmode=disable on a private network, or use `from_pool` with TLS",
            ));
        }
        let limit = format!("-c statement_timeout={}", TIME_LIMIT.as_millis());
        let options = config.get_options().map_or(limit.clone(), |theirs| format!("{limit} {theirs}"));
        config.options(options).connect_timeout(TIME_LIMIT).tcp_user_timeout(TIME_LIMIT * 2);
        config.keepalives_idle(Duration::from_secs(30));
        if config.get_application_name().is_none() {
            config.application_name("l402");
        }
        let manager = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let pool = Pool::builder(Manager::from_config(config, NoTls, manager))
            .max_size(CONNECTIONS)
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|err| error("the PostgreSQL pool was not built").with_source(err))?;
        Self::from_pool(pool).await
    }

    /// Uses a pool of your own, with its TLS, its size and its time limits, and
    /// makes or migrates the schema. Set a `statement_timeout`: an operation
    /// that is given up after 5 seconds would otherwise go on at the server.
    ///
    /// # Errors
    /// The server cannot be reached, or the schema is of a later version.
    ///
    /// # Panics
    /// Outside a tokio runtime with time and I/O enabled.
    pub async fn from_pool(pool: Pool) -> Result<Self, Error> {
        let store = Arc::new(Store { pool, revocations: Revocations::new() });
        let failed = |err| error("the PostgreSQL ledger could not be opened").with_source(err);
        timeout(TIME_LIMIT, store.migrate())
            .await
            .unwrap_or_else(|late| Err(LedgerError::new(late)))
            .map_err(failed)?;
        store.load_revocations().await.map_err(failed)?;
        let refresh = Refresh::start(&store, |store| async move { store.load_revocations().await });
        Ok(Self { store, _refresh: refresh })
    }
}

impl fmt::Debug for PostgresLedger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresLedger").finish_non_exhaustive()
    }
}

fn error(message: &str) -> Error {
    Error::new(ErrorKind::Ledger, message)
}

/// Whether nothing leaves the machine.
fn is_local(config: &Config) -> bool {
    let is_loopback =
        |name: &str| name == "localhost" || name.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
    // An address takes the place of the host's name.
    if !config.get_hostaddrs().is_empty() {
        return config.get_hostaddrs().iter().all(std::net::IpAddr::is_loopback);
    }
    config.get_hosts().iter().all(|host| match host {
        Host::Tcp(name) => is_loopback(name),
        #[cfg(unix)]
        Host::Unix(_) => true,
    })
}

/// A count or a moment, as large as the column takes.
fn clamp(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// What is sold: beyond the column's range less is, and never more.
fn clamp_sold(units: u64) -> i64 {
    clamp(units).min(MOST)
}

impl Store {
    /// Makes the schema, or brings it up to this version.
    async fn migrate(&self) -> Result<(), LedgerError> {
        let mut client = self.pool.get().await.map_err(LedgerError::new)?;
        let run = async {
            let step = client.transaction().await?;
            step.batch_execute("SELECT pg_advisory_xact_lock(1815359538, 1)").await?;
            let mut version = 0;
            let made = "SELECT to_regclass('l402.schema_version') IS NOT NULL";
            if step.query_typed(made, &[]).await?.iter().any(|row| row.get(0)) {
                for row in step.query_typed("SELECT max(version) FROM l402.schema_version", &[]).await? {
                    version = row.try_get::<_, i32>(0)?;
                }
            }
            let done = usize::try_from(version).unwrap_or(usize::MAX);
            for migration in MIGRATIONS.iter().skip(done) {
                step.batch_execute(migration).await?;
            }
            step.commit().await?;
            Ok::<_, tokio_postgres::Error>(done)
        };
        if run.await.map_err(LedgerError::new)? > MIGRATIONS.len() {
            return Err(LedgerError::new("its schema is of a later version of this crate"));
        }
        Ok(())
    }

    /// Runs one statement, in one round trip.
    async fn query(&self, sql: &str, params: Params<'_>) -> Result<Vec<Row>, LedgerError> {
        let deadline = Instant::now() + TIME_LIMIT;
        let client = timeout_at(deadline, self.pool.get()).await;
        let client = client.map_err(LedgerError::new)?.map_err(LedgerError::new)?;
        // Not prepared, so that a pooler between here and there does no harm.
        match timeout_at(deadline, client.query_typed(sql, params)).await {
            Ok(answer) => answer.map_err(LedgerError::new),
            Err(elapsed) => {
                // The next one would wait for the answer to this.
                drop(Object::take(client));
                Err(LedgerError::new(elapsed))
            }
        }
    }

    async fn load_revocations(&self) -> Result<(), LedgerError> {
        let rows = self.query("SELECT kind, subject, issued_before FROM l402.revocations", &[]).await?;
        let read = |row: Row| {
            let kind = row.try_get::<_, i16>(0).map_err(LedgerError::new)?;
            let subject = row.try_get(1).map_err(LedgerError::new)?;
            let issued_before = row.try_get(2).map_err(LedgerError::new)?;
            from_row((u8::try_from(kind).unwrap_or(u8::MAX), subject, count(issued_before)))
        };
        self.revocations.load(rows.into_iter().map(read).collect::<Result<Vec<_>, _>>()?);
        Ok(())
    }
}

/// A number of the store's, none of which is negative.
fn count(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}

#[async_trait]
impl Ledger for PostgresLedger {
    fn instance(&self) -> Option<[u8; 16]> {
        None
    }

    fn revocations(&self) -> &Revocations {
        &self.store.revocations
    }

    async fn reserve(&self, ask: &Reserve) -> Result<Reserved, LedgerError> {
        let lease_until = clamp(ask.now.saturating_add(LEASE.as_secs()));
        let due = clamp(ask.now) - clamp(MARGIN);
        let rows = self
            .store
            .query(
                "SELECT l402.reserve($1, $2, $3, $4, $5, $6, $7, $8)",
                &[
                    (&&ask.id.account().as_bytes()[..], Type::BYTEA),
                    (&&ask.id.nonce()[..], Type::BYTEA),
                    (&clamp(ask.units), Type::INT8),
                    (&clamp_sold(ask.limit), Type::INT8),
                    (&clamp_sold(ask.ceiling), Type::INT8),
                    (&clamp(ask.expires_at), Type::INT8),
                    (&lease_until, Type::INT8),
                    (&due, Type::INT8),
                ],
            )
            .await?;
        let row = rows.first().ok_or_else(|| unreadable("an answer"))?;
        reserved(row.try_get::<_, i64>(0).map_err(LedgerError::new)?)
    }

    async fn commit(&self, id: &ReservationId) -> Result<(), LedgerError> {
        let (account, nonce) = (id.account(), id.nonce());
        let params: Params<'_> = &[(&&account.as_bytes()[..], Type::BYTEA), (&&nonce[..], Type::BYTEA)];
        self.store.query("SELECT l402.commit($1, $2)", params).await.map(drop)
    }

    async fn release(&self, id: &ReservationId, now: u64) -> Result<(), LedgerError> {
        let (account, nonce) = (id.account(), id.nonce());
        let params: Params<'_> = &[
            (&&account.as_bytes()[..], Type::BYTEA),
            (&&nonce[..], Type::BYTEA),
            (&clamp(now), Type::INT8),
            // Where the reserve has not come yet, the row waits for it.
            (&clamp(now.saturating_add(LEASE.as_secs())), Type::INT8),
        ];
        self.store.query("SELECT l402.release($1, $2, $3, $4)", params).await.map(drop)
    }

    async fn credit(
        &self,
        account: &AccountId,
        units: u64,
        event_id: &str,
        expires_at: u64,
    ) -> Result<(), LedgerError> {
        let event = Sha256::digest(event_id.as_bytes());
        let params: Params<'_> = &[
            (&&account.as_bytes()[..], Type::BYTEA),
            (&clamp_sold(units), Type::INT8),
            (&&event[..], Type::BYTEA),
            (&clamp(expires_at), Type::INT8),
        ];
        self.store.query("SELECT l402.credit($1, $2, $3, $4)", params).await.map(drop)
    }

    async fn account(&self, account: &AccountId) -> Result<Option<Account>, LedgerError> {
        let sql = "SELECT sold, credited, used, expires_at FROM l402.accounts
            WHERE account = $1 AND (sold > 0 OR credited > 0)";
        let rows = self.store.query(sql, &[(&&account.as_bytes()[..], Type::BYTEA)]).await?;
        let read = |row: &Row| {
            let column = |at: usize| row.try_get(at).map(count);
            let limit = column(0)?.saturating_add(column(1)?);
            Ok(Account { limit, used: column(2)?, expires_at: column(3)? })
        };
        rows.first().map(read).transpose().map_err(|err: tokio_postgres::Error| LedgerError::new(err))
    }

    async fn revoke(&self, revocation: &Revocation) -> Result<(), LedgerError> {
        let (kind, subject, issued_before) = to_row(revocation);
        let params: Params<'_> =
            &[(&i16::from(kind), Type::INT2), (&subject, Type::BYTEA), (&clamp(issued_before), Type::INT8)];
        self.store.query("SELECT l402.revoke($1, $2, $3)", params).await?;
        self.store.revocations.add(revocation);
        Ok(())
    }

    /// The 10,000 whose leases end first.
    async fn open_reservations(&self) -> Result<Vec<OpenReservation>, LedgerError> {
        let sql = "SELECT account, nonce, units, lease_until FROM l402.reservations
            ORDER BY lease_until, account, nonce LIMIT $1";
        let rows = self.store.query(sql, &[(&i64::from(MAX_LISTED), Type::INT8)]).await?;
        let read = |row: &Row| {
            let account = row.try_get::<_, &[u8]>(0).ok()?.try_into().ok()?;
            let nonce = row.try_get::<_, &[u8]>(1).ok()?.try_into().ok()?;
            Some(OpenReservation {
                id: ReservationId::new(AccountId(account), nonce),
                units: count(row.try_get(2).ok()?),
                lease_until: count(row.try_get(3).ok()?),
            })
        };
        rows.iter().map(|row| read(row).ok_or_else(|| unreadable("a reservation"))).collect()
    }
}
