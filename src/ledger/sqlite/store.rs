//! What each operation does to the tables.
//!
//! The numbers of SQLite end at `i64::MAX`. Larger ones are cut to it, or to
//! what leaves room for a sum: never so that more is sold.

use std::path::Path;
use std::sync::Arc;

use rusqlite::{Row, params};

use crate::ledger::{
    Account, AccountId, LEASE, OpenReservation, ReservationId, Reserve, Reserved, Revocation, Revocations,
    release_cap,
};
use crate::preimage::PaymentHash;
use crate::sqlite::{Db, OpenError, Schema, Synchronous, Tables, integer, number};

const SCHEMA: Schema = Schema { name: "version", migrations: &[(1, include_str!("schema.sql"))] };
/// How long a row outlives its token, in seconds.
const MARGIN: u64 = 60;
/// The most that is kept of what was sold or credited, so that their sum is a number.
const MOST: i64 = i64::MAX / 2;

/// The tables, and what their thread knows.
pub(super) struct Store {
    db: Db,
    revocations: Arc<Revocations>,
    /// The last revocation that was read.
    seen: i64,
}

impl Tables for Store {
    fn db(&self) -> &Db {
        &self.db
    }

    /// Reads the revocations, if there are new ones.
    fn refresh(&mut self) -> rusqlite::Result<()> {
        let last = self.last_revocation()?;
        if last != self.seen {
            self.revocations.load(self.revocations()?);
            self.seen = last;
        }
        Ok(())
    }
}

impl Store {
    pub(super) fn open(
        file: &Path,
        synchronous: Synchronous,
        revocations: Arc<Revocations>,
    ) -> Result<Self, OpenError> {
        let mut store = Self { db: Db::open(file, synchronous, &SCHEMA)?, revocations, seen: 0 };
        store.refresh()?;
        Ok(store)
    }

    pub(super) fn reserve(&self, ask: &Reserve) -> rusqlite::Result<Reserved> {
        loop {
            let (known, answer) = self.look(ask)?;
            // A refusal takes no lock. What was seen without it is looked at again under it.
            if let Some(answer) = answer {
                return Ok(answer);
            }
            if !self.db.begin()? {
                return self.spend(ask, known);
            }
        }
    }

    /// Whether the account has a row, and the answer where nothing is to be written.
    fn look(&self, ask: &Reserve) -> rusqlite::Result<(bool, Option<Reserved>)> {
        let sql = "SELECT purged.value, account.sold, account.credited, account.used,
                EXISTS (SELECT 1 FROM l402_tombstone WHERE account = ?1 AND nonce = ?2),
                EXISTS (SELECT 1 FROM l402_open WHERE account = ?1 AND nonce = ?2)
            FROM l402_meta AS purged LEFT JOIN l402_account AS account ON account.id = ?1
            WHERE purged.key = 'purged_until'";
        self.db.prepare(sql)?.query_row(params![ask.id.account.0, ask.id.nonce], |row| {
            let sold: Option<i64> = row.get(1)?;
            let credited: i64 = row.get::<_, Option<i64>>(2)?.unwrap_or(0);
            let used: i64 = row.get::<_, Option<i64>>(3)?.unwrap_or(0);
            let limit = count(ask.limit).max(sold.unwrap_or(0)) + credited;
            let remaining = number(limit.min(integer(ask.ceiling)) - used);
            let purged_until = number(row.get(0)?).max(ask.now.saturating_sub(MARGIN));
            let answer = if ask.expires_at <= purged_until {
                Some(Reserved::Expired)
            } else if row.get(4)? {
                Some(Reserved::Released)
            } else if row.get(5)? {
                Some(Reserved::Open { remaining })
            } else if ask.units > remaining {
                Some(Reserved::UsedUp)
            } else {
                None
            };
            Ok((sold.is_some(), answer))
        })
    }

    /// Takes the units, if they are there.
    fn spend(&self, ask: &Reserve, known: bool) -> rusqlite::Result<Reserved> {
        let (account, units) = (ask.id.account.0, integer(ask.units));
        let sql = if known {
            "UPDATE l402_account
            SET sold = max(sold, ?2), used = used + ?3, expires_at = max(expires_at, ?4)
            WHERE id = ?1 AND ?3 <= min(max(sold, ?2) + credited, ?5) - used
            RETURNING min(sold + credited, ?5) - used"
        } else {
            self.purge(ask.now)?;
            "INSERT INTO l402_account (id, sold, used, expires_at)
            SELECT ?1, ?2, ?3, ?4 WHERE ?3 <= min(?2, ?5)
            RETURNING min(sold, ?5) - used"
        };
        let terms = params![account, count(ask.limit), units, integer(ask.expires_at), integer(ask.ceiling)];
        let Some(remaining) = self.db.row(sql, terms, |row| row.get(0))? else {
            return Ok(Reserved::UsedUp);
        };
        let sql = "INSERT INTO l402_open (account, nonce, units, lease_until) VALUES (?1, ?2, ?3, ?4)";
        self.db.execute(sql, params![account, ask.id.nonce, units, lease_until(ask.now)])?;
        Ok(Reserved::Open { remaining: number(remaining) })
    }

    /// Drops some rows whose token expired [`MARGIN`] ago, the oldest first.
    fn purge(&self, now: u64) -> rusqlite::Result<()> {
        let sql = "DELETE FROM l402_account WHERE id IN
            (SELECT id FROM l402_account WHERE expires_at <= ?1 ORDER BY expires_at LIMIT 64)
            RETURNING expires_at";
        let mut purged_until = None;
        let mut delete = self.db.prepare(sql)?;
        let mut gone = delete.query([integer(now.saturating_sub(MARGIN))])?;
        while let Some(row) = gone.next()? {
            purged_until = purged_until.max(Some(row.get::<_, i64>(0)?));
        }
        if purged_until.is_some() {
            self.db.execute(
                "UPDATE l402_meta SET value = max(value, ?1) WHERE key = 'purged_until'",
                [purged_until],
            )?;
        }
        Ok(())
    }

    pub(super) fn commit(&self, id: &ReservationId) -> rusqlite::Result<()> {
        self.db.begin()?;
        let sql = "DELETE FROM l402_open WHERE account = ?1 AND nonce = ?2";
        self.db.execute(sql, params![id.account.0, id.nonce]).map(drop)
    }

    pub(super) fn release(&self, id: &ReservationId, now: u64) -> rusqlite::Result<()> {
        self.db.begin()?;
        let (account, nonce) = (id.account.0, id.nonce);
        let sql =
            "SELECT units, lease_until, sold + credited FROM l402_open JOIN l402_account ON id = account
            WHERE account = ?1 AND nonce = ?2";
        let open = self.db.row(sql, params![account, nonce], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?))
        })?;
        let Some((units, lease_until_then, sold)) = open else {
            let old = "DELETE FROM l402_tombstone WHERE (account, nonce) IN
                (SELECT account, nonce FROM l402_tombstone WHERE until <= ?1 LIMIT 64)";
            self.db.execute(old, [integer(now)])?;
            let new = "INSERT OR IGNORE INTO l402_tombstone (account, nonce, until) VALUES (?1, ?2, ?3)";
            return self.db.execute(new, params![account, nonce, lease_until(now)]).map(drop);
        };
        if lease_until_then > integer(now) {
            self.commit(id)?;
            let sql = "UPDATE l402_account SET used = used - ?2, released = released + ?2
                WHERE id = ?1 AND released < ?3";
            self.db.execute(sql, params![account, units, integer(release_cap(number(sold)))])?;
        }
        Ok(())
    }

    pub(super) fn credit(
        &self,
        account: AccountId,
        units: u64,
        event: &str,
        expires_at: u64,
    ) -> rusqlite::Result<()> {
        self.db.begin()?;
        let sql = "INSERT INTO l402_account (id, sold, expires_at) VALUES (?1, 0, ?2)
            ON CONFLICT (id) DO UPDATE SET expires_at = max(expires_at, excluded.expires_at)";
        self.db.execute(sql, params![account.0, integer(expires_at)])?;
        let sql = "INSERT OR IGNORE INTO l402_event (account, event) VALUES (?1, ?2)";
        if self.db.execute(sql, params![account.0, event])? == 1 {
            let sql = "UPDATE l402_account SET credited = min(credited + ?2, ?3) WHERE id = ?1";
            self.db.execute(sql, params![account.0, count(units), MOST])?;
        }
        Ok(())
    }

    pub(super) fn account(&self, account: AccountId) -> rusqlite::Result<Option<Account>> {
        let sql = "SELECT sold + credited, used, expires_at FROM l402_account WHERE id = ?1";
        self.db.row(sql, [account.0], |row| {
            Ok(Account {
                limit: number(row.get(0)?),
                used: number(row.get(1)?),
                expires_at: number(row.get(2)?),
            })
        })
    }

    pub(super) fn open_reservations(&self) -> rusqlite::Result<Vec<OpenReservation>> {
        let mut all = self.db.prepare("SELECT account, nonce, units, lease_until FROM l402_open")?;
        let read = |row: &Row<'_>| {
            let id = ReservationId::new(AccountId(row.get(0)?), row.get(1)?);
            Ok(OpenReservation { id, units: number(row.get(2)?), lease_until: number(row.get(3)?) })
        };
        all.query_map([], read)?.collect()
    }

    pub(super) fn revoke(&self, revocation: &Revocation) -> rusqlite::Result<()> {
        self.db.begin()?;
        let (kind, subject, issued_before) = match revocation {
            Revocation::Token(hash) => ("token", &hash.as_bytes()[..], 0),
            Revocation::Service { name, issued_before } => ("service", name.as_bytes(), *issued_before),
            Revocation::Key(id) => ("key", &id[..], 0),
        };
        let sql = "INSERT OR IGNORE INTO l402_revocation (kind, subject, issued_before) VALUES (?1, ?2, ?3)";
        self.db.execute(sql, params![kind, subject, integer(issued_before)]).map(drop)
    }

    /// The number of the revocation that was stored last; 0 where there is none.
    fn last_revocation(&self) -> rusqlite::Result<i64> {
        let last = "SELECT coalesce(max(seq), 0) FROM l402_revocation";
        self.db.prepare(last)?.query_row([], |row| row.get(0))
    }

    fn revocations(&self) -> rusqlite::Result<Vec<Revocation>> {
        let mut all = self.db.prepare("SELECT kind, subject, issued_before FROM l402_revocation")?;
        let read = |row: &Row<'_>| {
            Ok(match row.get_ref(0)?.as_str()? {
                "token" => Revocation::Token(PaymentHash::from_bytes(row.get(1)?)),
                "key" => Revocation::Key(row.get(1)?),
                _ => Revocation::Service {
                    name: String::from_utf8_lossy(row.get_ref(1)?.as_blob()?).into_owned(),
                    issued_before: number(row.get(2)?),
                },
            })
        };
        all.query_map([], read)?.collect()
    }
}

fn count(n: u64) -> i64 {
    integer(n).min(MOST)
}

fn lease_until(now: u64) -> i64 {
    integer(now.saturating_add(LEASE.as_secs()))
}
