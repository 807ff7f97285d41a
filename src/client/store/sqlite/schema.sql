-- The tables of version 1, beside l402_meta (key, value).
CREATE TABLE l402_purchase (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    payment_hash BLOB NOT NULL UNIQUE,
    origin TEXT NOT NULL,
    path TEXT NOT NULL,
    scope TEXT NOT NULL,
    token TEXT NOT NULL,
    invoice TEXT NOT NULL,
    amount_msat INTEGER NOT NULL,
    max_fee_msat INTEGER NOT NULL,
    pay_by INTEGER NOT NULL,
    valid_until INTEGER,
    is_single_use INTEGER NOT NULL,
    begun_at INTEGER NOT NULL,
    state TEXT NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'held', 'gone')),
    preimage TEXT CHECK ((state = 'held') = (preimage IS NOT NULL)),
    fee_msat INTEGER NOT NULL DEFAULT 0,
    paid_at INTEGER NOT NULL DEFAULT 0,
    cost_msat INTEGER NOT NULL AS (amount_msat + iif(state = 'pending', max_fee_msat, fee_msat))
) STRICT;
CREATE INDEX l402_purchase_origin ON l402_purchase (origin);
CREATE INDEX l402_purchase_state ON l402_purchase (state, valid_until);
-- Sums of receipts that were dropped.
CREATE TABLE l402_dropped_origin (
    origin TEXT PRIMARY KEY,
    msat INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE l402_dropped_minute (
    minute INTEGER PRIMARY KEY,
    msat INTEGER NOT NULL
) STRICT;
INSERT OR IGNORE INTO l402_meta (key, value) VALUES ('client_dropped_msat', 0);
