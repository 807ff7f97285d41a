//! A connection to a file that processes share, in the hands of one thread.

use std::fs::OpenOptions;
use std::io;
use std::path::Path;
use std::thread;
use std::time::Duration;

use rusqlite::{
    CachedStatement, Connection, ErrorCode, OpenFlags, OptionalExtension, Params, Row, TransactionBehavior,
    params,
};

use super::Synchronous;

/// Tries, of one millisecond each, to get a lock that another process holds.
const LOCK_TRIES: i32 = 4000;

/// Tables, and what brings them from one version to the next.
pub(crate) struct Schema {
    /// What their version is called among those of others in the file.
    pub(crate) name: &'static str,
    /// Each with the version that it leads to.
    pub(crate) migrations: &'static [(i64, &'static str)],
}

pub(crate) struct Db(Connection);

impl Db {
    pub(crate) fn open(file: &Path, synchronous: Synchronous, schema: &Schema) -> Result<Self, OpenError> {
        // An absolute path is never one of the names that mean a database in memory.
        let file = std::path::absolute(file)?;
        create_private(&file)?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut db = Connection::open_with_flags(&file, flags)?;
        db.set_prepared_statement_cache_capacity(32);
        db.busy_handler(Some(wait_for_lock))?;
        if db.is_readonly("main")? {
            return Err("it is read-only".into());
        }
        use_wal(&db)?;
        let synchronous = if synchronous == Synchronous::Full { "FULL" } else { "NORMAL" };
        db.pragma_update(None, "synchronous", synchronous)?;
        db.pragma_update(None, "foreign_keys", true)?;
        migrate(&mut db, schema)?;
        Ok(Self(db))
    }

    /// Whether a transaction is under way.
    pub(super) fn writes(&self) -> bool {
        !self.0.is_autocommit()
    }

    /// Makes what was written since [`begin`](Self::begin) durable.
    pub(super) fn keep(&self) -> rusqlite::Result<()> {
        if self.writes() { self.execute("COMMIT", []).map(drop) } else { Ok(()) }
    }

    /// Undoes what was written since [`begin`](Self::begin).
    pub(super) fn undo(&self) -> rusqlite::Result<()> {
        if self.writes() { self.execute("ROLLBACK", []).map(drop) } else { Ok(()) }
    }

    /// Takes the write lock. False where it was held already.
    pub(crate) fn begin(&self) -> rusqlite::Result<bool> {
        let idle = !self.writes();
        if idle {
            self.execute("BEGIN IMMEDIATE", [])?;
        }
        Ok(idle)
    }

    pub(crate) fn prepare(&self, sql: &str) -> rusqlite::Result<CachedStatement<'_>> {
        self.0.prepare_cached(sql)
    }

    pub(crate) fn execute(&self, sql: &str, params: impl Params) -> rusqlite::Result<usize> {
        self.prepare(sql)?.execute(params)
    }

    pub(crate) fn row<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<Option<T>> {
        self.prepare(sql)?.query_row(params, read).optional()
    }
}

pub(crate) type OpenError = Box<dyn std::error::Error + Send + Sync>;

/// Creates the file where there is none. SQLite gives the files beside it the
/// same permissions.
fn create_private(file: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    // Only if it is new: closing a file that is there would end the locks that
    // this process has on it.
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(file) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// Asked by SQLite whether to try again, after this many tries. The holder of a
/// lock is done within milliseconds, so waits that grow would starve the others.
fn wait_for_lock(tries: i32) -> bool {
    thread::sleep(Duration::from_millis(1));
    tries < LOCK_TRIES
}

fn use_wal(db: &Connection) -> Result<(), OpenError> {
    // SQLite asks nobody whether to try again while two processes do this.
    for tries in 0.. {
        match db.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get::<_, String>(0)) {
            Ok(mode) if mode == "wal" => break,
            Ok(mode) => return Err(format!("its journal is `{mode}` and cannot be `wal`").into()),
            Err(error)
                if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) && wait_for_lock(tries) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn migrate(db: &mut Connection, schema: &Schema) -> Result<(), OpenError> {
    let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute_batch(
        "CREATE TABLE IF NOT EXISTS l402_meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID",
    )?;
    let sql = "SELECT value FROM l402_meta WHERE key = ?1";
    let version: i64 = transaction.query_row(sql, [schema.name], |row| row.get(0)).optional()?.unwrap_or(0);
    if schema.migrations.iter().all(|(known, _)| version > *known) {
        return Err(format!("a later release of l402 wrote it (version {version} of its tables)").into());
    }
    for (next, migration) in schema.migrations.iter().filter(|(next, _)| version < *next) {
        transaction.execute_batch(migration)?;
        let sql = "INSERT OR REPLACE INTO l402_meta (key, value) VALUES (?1, ?2)";
        transaction.execute(sql, params![schema.name, next])?;
    }
    Ok(transaction.commit()?)
}

/// A number of SQLite, which ends at `i64::MAX`.
pub(crate) fn integer(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

pub(crate) fn number(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0)
}
