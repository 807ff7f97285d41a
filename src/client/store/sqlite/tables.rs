//! What each operation does to the tables: what `book.rs` does to a book.

use std::path::Path;

use rusqlite::types::Type;
use rusqlite::{Params, Row, params};
use zeroize::Zeroizing;

use crate::client::budget::{ALL_BITCOIN_MSAT, Budget};
use crate::client::store::book::{MOST_ORIGINS, MOST_PURCHASES, minute};
use crate::client::store::{Begun, DAY, HOUR, Purchase, PurchaseState, Spent};
use crate::preimage::{PaymentHash, Preimage};
use crate::sqlite::{Db, OpenError, Schema, Synchronous, Tables, integer, number};

const SCHEMA: Schema = Schema { name: "client_version", migrations: &[(1, include_str!("schema.sql"))] };
/// Columns of a purchase, in the order in which they are read.
const PURCHASE: &str = "payment_hash, origin, path, scope, token, invoice, amount_msat, max_fee_msat, pay_by,
    valid_until, is_single_use, begun_at, state, preimage, fee_msat, paid_at";
/// What becomes of a row whose token is gone.
const GO: &str = "UPDATE l402_purchase SET state = 'gone', token = '', invoice = '', preimage = NULL";

/// The tables, in the hands of their thread.
pub(super) struct Store(Db);

impl Tables for Store {
    fn db(&self) -> &Db {
        &self.0
    }
}

impl Store {
    pub(super) fn open(file: &Path) -> Result<Self, OpenError> {
        let db = Db::open(file, Synchronous::Full, &SCHEMA)?;
        // What is deleted is overwritten.
        db.row("PRAGMA secure_delete = ON", [], |_| Ok(()))?;
        Ok(Self(db))
    }

    /// `None` where there is no room.
    pub(super) fn begin(
        &self,
        purchase: &Purchase,
        budget: &Budget,
        now: u64,
    ) -> rusqlite::Result<Option<Begun>> {
        // Before anything is read: others wait with what they read and write.
        self.0.begin()?;
        if self.knows(purchase.payment_hash)? {
            return Ok(Some(Begun::Exists));
        }
        let spent = self.spent(&purchase.origin, now)?;
        if let Err(limit) = budget.allows(&spent, purchase.cost_msat()) {
            return Ok(Some(Begun::OverBudget(limit)));
        }
        let expired = format!("{GO} WHERE state = 'held' AND valid_until <= ?1");
        self.0.execute(&expired, [integer(now)])?;
        if !self.make_room()? {
            return Ok(None);
        }
        self.drop_receipts(now)?;
        let sql = "INSERT INTO l402_purchase (payment_hash, origin, path, scope, token, invoice, amount_msat,
            max_fee_msat, pay_by, valid_until, is_single_use, begun_at)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)";
        let row = params![
            purchase.payment_hash.as_bytes(),
            purchase.origin,
            purchase.path,
            purchase.scope,
            purchase.token,
            purchase.invoice,
            msat(purchase.amount_msat),
            msat(purchase.max_fee_msat),
            integer(purchase.pay_by),
            purchase.valid_until.map(integer),
            purchase.is_single_use,
            integer(purchase.begun_at),
        ];
        self.0.execute(sql, row)?;
        Ok(Some(Begun::Started))
    }

    fn knows(&self, payment_hash: PaymentHash) -> rusqlite::Result<bool> {
        let sql = "SELECT 1 FROM l402_purchase WHERE payment_hash = ?1";
        Ok(self.0.row(sql, [payment_hash.as_bytes()], |_| Ok(()))?.is_some())
    }

    /// Whether there is room for one more token.
    fn make_room(&self) -> rusqlite::Result<bool> {
        let sql = "SELECT count(*) FROM l402_purchase WHERE state IN ('pending', 'held')";
        let open: i64 = self.0.row(sql, [], |row| row.get(0))?.unwrap_or(0);
        if number(open) < MOST_PURCHASES as u64 {
            return Ok(true);
        }
        let oldest = format!(
            "{GO} WHERE seq = (SELECT seq FROM l402_purchase WHERE state = 'held' ORDER BY seq LIMIT 1)"
        );
        Ok(self.0.execute(&oldest, [])? == 1)
    }

    /// Drops the oldest receipts beyond the most there may be, into sums.
    fn drop_receipts(&self, now: u64) -> rusqlite::Result<()> {
        let sql = "DELETE FROM l402_purchase WHERE seq IN
            (SELECT seq FROM l402_purchase WHERE state = 'gone' ORDER BY seq
                LIMIT max(0, (SELECT count(*) FROM l402_purchase WHERE state = 'gone') - ?1))
            RETURNING origin, begun_at, cost_msat";
        let mut delete = self.0.prepare(sql)?;
        let dropped = delete.query_map([integer(MOST_PURCHASES as u64)], |row| {
            Ok((row.get::<_, String>(0)?, row.get(1)?, row.get(2)?))
        })?;
        for (origin, begun_at, cost_msat) in dropped.collect::<rusqlite::Result<Vec<(String, i64, i64)>>>()? {
            self.add_dropped(&origin, number(begun_at), msat(number(cost_msat)), now)?;
        }
        Ok(())
    }

    fn add_dropped(&self, origin: &str, begun_at: u64, cost: i64, now: u64) -> rusqlite::Result<()> {
        // Two numbers of at most all the bitcoin have a sum.
        let most = msat(u64::MAX);
        let sql = "UPDATE l402_meta SET value = min(value + ?1, ?2) WHERE key = 'client_dropped_msat'";
        self.0.execute(sql, [cost, most])?;
        let sql = "INSERT INTO l402_dropped_origin (origin, msat) SELECT ?1, ?2
            WHERE (SELECT count(*) FROM l402_dropped_origin) < ?4
                OR EXISTS (SELECT 1 FROM l402_dropped_origin WHERE origin = ?1)
            ON CONFLICT (origin) DO UPDATE SET msat = min(msat + ?2, ?3)";
        self.0.execute(sql, params![origin, cost, most, integer(MOST_ORIGINS as u64)])?;
        let old = "DELETE FROM l402_dropped_minute WHERE minute <= ?1";
        self.0.execute(old, [integer(now) - integer(DAY)])?;
        let sql = "INSERT INTO l402_dropped_minute (minute, msat) VALUES (?1, ?2)
            ON CONFLICT (minute) DO UPDATE SET msat = min(msat + ?2, ?3)";
        self.0.execute(sql, [integer(minute(begun_at)), cost, most]).map(drop)
    }

    /// False where there is no such purchase.
    pub(super) fn settle(
        &self,
        payment_hash: PaymentHash,
        preimage: Option<&Preimage>,
        fee_msat: u64,
        now: u64,
    ) -> rusqlite::Result<bool> {
        self.0.begin()?;
        let (hash, fee, now) = (payment_hash.as_bytes(), msat(fee_msat), integer(now));
        let set = "fee_msat = ?2, paid_at = ?3 WHERE payment_hash = ?1 AND state = 'pending'";
        match preimage {
            Some(preimage) => {
                let sql = format!("UPDATE l402_purchase SET state = 'held', preimage = ?4, {set}");
                self.0.execute(&sql, params![hash, fee, now, *Zeroizing::new(preimage.to_hex())])?
            }
            None => self.0.execute(&format!("{GO}, {set}"), params![hash, fee, now])?,
        };
        self.knows(payment_hash)
    }

    pub(super) fn fail(&self, payment_hash: PaymentHash) -> rusqlite::Result<()> {
        self.0.begin()?;
        let sql = "DELETE FROM l402_purchase WHERE payment_hash = ?1 AND state = 'pending'";
        self.0.execute(sql, [payment_hash.as_bytes()]).map(drop)
    }

    pub(super) fn discard(&self, payment_hash: PaymentHash) -> rusqlite::Result<()> {
        self.0.begin()?;
        let sql = format!("{GO} WHERE payment_hash = ?1 AND state = 'held'");
        self.0.execute(&sql, [payment_hash.as_bytes()]).map(drop)
    }

    pub(super) fn of_origin(&self, origin: &str) -> rusqlite::Result<Vec<Purchase>> {
        self.purchases("WHERE origin = ?1 AND state IN ('pending', 'held')", [origin])
    }

    pub(super) fn all(&self) -> rusqlite::Result<Vec<Purchase>> {
        self.purchases("", [])
    }

    fn purchases(&self, which: &str, params: impl Params) -> rusqlite::Result<Vec<Purchase>> {
        let sql = format!("SELECT {PURCHASE} FROM l402_purchase {which} ORDER BY seq DESC");
        self.0.prepare(&sql)?.query_map(params, purchase)?.collect()
    }

    /// Sums that are no number of SQLite's are an error, and nothing is bought:
    /// it takes a wallet that tells of several fees beyond all the bitcoin.
    pub(super) fn spent(&self, origin: &str, now: u64) -> rusqlite::Result<Spent> {
        let since = |seconds| integer(now) - integer(seconds);
        let sql = "SELECT coalesce(sum(cost_msat) FILTER (WHERE origin = ?1), 0),
                coalesce(sum(cost_msat) FILTER (WHERE begun_at > ?2), 0),
                coalesce(sum(cost_msat) FILTER (WHERE begun_at > ?3), 0),
                coalesce(sum(cost_msat), 0),
                coalesce((SELECT msat FROM l402_dropped_origin WHERE origin = ?1), 0),
                (SELECT value FROM l402_meta WHERE key = 'client_dropped_msat')
            FROM l402_purchase";
        let read = |row: &Row<'_>| {
            let sum = |at| row.get(at).map(number);
            Ok(Spent {
                origin_msat: sum(0)?.saturating_add(sum(4)?),
                hour_msat: sum(1)?,
                day_msat: sum(2)?,
                total_msat: sum(3)?.saturating_add(sum(5)?),
            })
        };
        let sums = self.0.row(sql, params![origin, since(HOUR), since(DAY)], read)?;
        let mut spent = sums.ok_or(rusqlite::Error::QueryReturnedNoRows)?;
        let sql = "SELECT minute, msat FROM l402_dropped_minute WHERE minute > ?1";
        let mut minutes = self.0.prepare(sql)?;
        let minutes =
            minutes.query_map([since(DAY)], |row| Ok((number(row.get(0)?), number(row.get(1)?))))?;
        let minutes = minutes.collect::<rusqlite::Result<Vec<_>>>()?;
        spent.add_dropped(minutes.into_iter(), now);
        Ok(spent)
    }
}

fn purchase(row: &Row<'_>) -> rusqlite::Result<Purchase> {
    let (fee_msat, paid_at) = (number(row.get(14)?), number(row.get(15)?));
    let state = match row.get_ref(12)?.as_str()? {
        "pending" => PurchaseState::Pending,
        "held" => {
            let preimage = Preimage::from_hex(row.get_ref(13)?.as_str()?)
                .map_err(|error| rusqlite::Error::FromSqlConversionFailure(13, Type::Text, error.into()))?;
            PurchaseState::Held { preimage, fee_msat, paid_at }
        }
        _ => PurchaseState::Gone { fee_msat, paid_at },
    };
    Ok(Purchase {
        payment_hash: PaymentHash::from_bytes(row.get(0)?),
        origin: row.get(1)?,
        path: row.get(2)?,
        scope: row.get(3)?,
        token: row.get(4)?,
        invoice: row.get(5)?,
        amount_msat: number(row.get(6)?),
        max_fee_msat: number(row.get(7)?),
        pay_by: number(row.get(8)?),
        valid_until: row.get::<_, Option<i64>>(9)?.map(number),
        is_single_use: row.get(10)?,
        begun_at: number(row.get(11)?),
        state,
    })
}

/// At most all the bitcoin that there is, so that some have a sum.
fn msat(n: u64) -> i64 {
    integer(n.min(ALL_BITCOIN_MSAT))
}
