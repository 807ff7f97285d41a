-- The tables of version 1, beside l402_meta (key, value).
CREATE TABLE l402_account (
    id BLOB PRIMARY KEY,
    sold INTEGER NOT NULL,
    credited INTEGER NOT NULL DEFAULT 0,
    used INTEGER NOT NULL DEFAULT 0 CHECK (used BETWEEN 0 AND sold + credited),
    released INTEGER NOT NULL DEFAULT 0,
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX l402_account_expiry ON l402_account (expires_at);
CREATE TABLE l402_open (
    account BLOB NOT NULL REFERENCES l402_account ON DELETE CASCADE,
    nonce BLOB NOT NULL,
    units INTEGER NOT NULL,
    lease_until INTEGER NOT NULL,
    PRIMARY KEY (account, nonce)
) STRICT, WITHOUT ROWID;
CREATE TABLE l402_event (
    account BLOB NOT NULL REFERENCES l402_account ON DELETE CASCADE,
    event TEXT NOT NULL,
    PRIMARY KEY (account, event)
) STRICT, WITHOUT ROWID;
CREATE TABLE l402_tombstone (
    account BLOB NOT NULL,
    nonce BLOB NOT NULL,
    until INTEGER NOT NULL,
    PRIMARY KEY (account, nonce)
) STRICT, WITHOUT ROWID;
CREATE INDEX l402_tombstone_until ON l402_tombstone (until);
CREATE TABLE l402_revocation (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL CHECK (kind IN ('token', 'service', 'key')),
    subject BLOB NOT NULL,
    issued_before INTEGER NOT NULL,
    UNIQUE (kind, subject, issued_before)
) STRICT;
INSERT INTO l402_meta (key, value) VALUES ('purged_until', 0);
