-- Version 1 of the schema. A later version is a file of its own, run after
-- this one; where a function changes its arguments it gets a new name, so that
-- servers of both versions go on while they are replaced one by one.
--
-- Counts and times are bigint. The caller clamps: what is sold, credited or a
-- ceiling to 2^63 - 2, what is asked for to 2^63 - 1, so that no sum overflows
-- and the largest ask is larger than all there can be.

DO $$ BEGIN
    -- Not IF NOT EXISTS: that asks for the right to create schemas even where it exists.
    IF to_regnamespace('l402') IS NULL THEN CREATE SCHEMA l402; END IF;
END $$;

CREATE TABLE l402.schema_version (version integer PRIMARY KEY);

-- Updates of the count stay on their page: no index has `used`, and pages keep room.
CREATE TABLE l402.accounts (
    account bytea PRIMARY KEY,
    sold bigint NOT NULL DEFAULT 0,
    credited bigint NOT NULL DEFAULT 0,
    used bigint NOT NULL DEFAULT 0 CHECK (used >= 0),
    released bigint NOT NULL DEFAULT 0,
    expires_at bigint NOT NULL
) WITH (fillfactor = 70);
CREATE INDEX accounts_expires_at ON l402.accounts (expires_at);

CREATE TABLE l402.reservations (
    account bytea,
    nonce bytea,
    units bigint NOT NULL,
    lease_until bigint NOT NULL,
    PRIMARY KEY (account, nonce)
);

CREATE TABLE l402.tombstones (account bytea, nonce bytea, PRIMARY KEY (account, nonce));

-- The SHA-256 of the event's id: whatever its length, a row stays small.
CREATE TABLE l402.events (account bytea, event bytea, PRIMARY KEY (account, event));

-- kind 0: a payment hash; 1: a service, before a moment; 2: a key id.
CREATE TABLE l402.revocations (
    kind smallint,
    subject bytea,
    issued_before bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (kind, subject)
);

-- Rows of tokens that expired up to here may be gone.
CREATE TABLE l402.purged (id boolean PRIMARY KEY DEFAULT true CHECK (id), until bigint NOT NULL);
INSERT INTO l402.purged (until) VALUES (-1);

CREATE FUNCTION l402.available(sold bigint, credited bigint, ceiling bigint) RETURNS bigint
LANGUAGE sql IMMUTABLE AS $$
    SELECT least(ceiling, sold + least(credited, 9223372036854775806 - sold))
$$;

-- What every change relies on.
CREATE FUNCTION l402.check_session() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    -- Each statement must see what was committed while it waited for a row.
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'l402 needs the isolation level read committed';
    END IF;
    -- A count that a crash takes back would be sold twice.
    IF current_setting('synchronous_commit') = 'off' THEN
        PERFORM set_config('synchronous_commit', 'on', true);
    END IF;
END $$;

-- Removes at most 100 accounts whose rows are due. One session at a time does
-- it, and waits for nobody: it passes over rows that are in use.
CREATE FUNCTION l402.purge(_due bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    _gone bytea[];
    _last bigint;
BEGIN
    -- min() reads one entry of the index, whatever the planner believes.
    IF (SELECT min(expires_at) FROM l402.accounts) <= _due
        AND pg_try_advisory_xact_lock(1815359538, 2)
    THEN
        WITH due AS (
            SELECT account FROM l402.accounts WHERE expires_at <= _due
            ORDER BY expires_at LIMIT 100 FOR UPDATE SKIP LOCKED
        ), gone AS (
            DELETE FROM l402.accounts a USING due WHERE a.account = due.account
            RETURNING a.account, a.expires_at
        )
        SELECT array_agg(account), max(expires_at) INTO _gone, _last FROM gone;
        DELETE FROM l402.reservations WHERE account = ANY (_gone);
        DELETE FROM l402.tombstones WHERE account = ANY (_gone);
        DELETE FROM l402.events WHERE account = ANY (_gone);
        UPDATE l402.purged SET until = greatest(until, _last);
    END IF;
END $$;

-- What is left, or -1 used up, -2 released before, -3 expired.
CREATE FUNCTION l402.reserve(
    _account bytea, _nonce bytea, _units bigint, _limit bigint, _ceiling bigint,
    _expires_at bigint, _lease_until bigint, _due bigint
) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    _left bigint;
BEGIN
    PERFORM l402.check_session();
    PERFORM l402.purge(_due);
    IF _expires_at <= (SELECT until FROM l402.purged) THEN RETURN -3; END IF;
    LOOP
        -- The debit: waits for the row where another has it, then decides anew.
        UPDATE l402.accounts a
        SET used = a.used + _units,
            sold = greatest(a.sold, _limit),
            expires_at = greatest(a.expires_at, _expires_at)
        WHERE a.account = _account
            AND _units <= greatest(0, l402.available(greatest(a.sold, _limit), a.credited, _ceiling) - a.used)
        RETURNING greatest(0, l402.available(a.sold, a.credited, _ceiling) - a.used) INTO _left;
        EXIT WHEN FOUND;

        -- Refused without a lock or a write: it was used up when this was read.
        SELECT greatest(0, l402.available(greatest(a.sold, _limit), a.credited, _ceiling) - a.used)
        INTO _left FROM l402.accounts a WHERE a.account = _account;
        IF FOUND THEN
            IF EXISTS (SELECT FROM l402.tombstones WHERE account = _account AND nonce = _nonce) THEN
                RETURN -2;
            END IF;
            IF EXISTS (SELECT FROM l402.reservations WHERE account = _account AND nonce = _nonce) THEN
                RETURN _left;
            END IF;
            -- It may have gained units between the two statements.
            IF _units > _left THEN RETURN -1; END IF;
            CONTINUE;
        END IF;

        INSERT INTO l402.accounts (account, sold, expires_at) VALUES (_account, _limit, _expires_at)
        ON CONFLICT DO NOTHING;
        -- Its row may have been purged between the first look and the insert.
        IF FOUND AND _expires_at <= (SELECT until FROM l402.purged) THEN
            DELETE FROM l402.accounts WHERE account = _account;
            RETURN -3;
        END IF;
    END LOOP;

    -- The row is locked from here on, so no release of this id is under way.
    IF EXISTS (SELECT FROM l402.tombstones WHERE account = _account AND nonce = _nonce) THEN
        UPDATE l402.accounts SET used = used - _units WHERE account = _account;
        RETURN -2;
    END IF;
    INSERT INTO l402.reservations VALUES (_account, _nonce, _units, _lease_until) ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        UPDATE l402.accounts SET used = used - _units WHERE account = _account;
        RETURN _left + _units;
    END IF;
    RETURN _left;
END $$;

CREATE FUNCTION l402.commit(_account bytea, _nonce bytea) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM l402.check_session();
    DELETE FROM l402.reservations WHERE account = _account AND nonce = _nonce;
END $$;

-- The row of an account, locked, which stays until this second at least.
CREATE FUNCTION l402.lock_account(_account bytea, _expires_at bigint) RETURNS void
LANGUAGE sql AS $$
    INSERT INTO l402.accounts AS a (account, expires_at) VALUES (_account, _expires_at)
    ON CONFLICT (account) DO UPDATE SET expires_at = greatest(a.expires_at, _expires_at)
$$;

CREATE FUNCTION l402.release(_account bytea, _nonce bytea, _now bigint, _keep_until bigint) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    _units bigint;
BEGIN
    PERFORM l402.check_session();
    -- A reserve that is under way has the row: this waits for it.
    PERFORM l402.lock_account(_account, _keep_until);
    DELETE FROM l402.reservations
    WHERE account = _account AND nonce = _nonce AND lease_until > _now
    RETURNING units INTO _units;
    IF FOUND THEN
        -- `release_cap` of the crate.
        UPDATE l402.accounts
        SET used = used - _units, released = released + least(_units, 9223372036854775806 - released)
        WHERE account = _account
            AND released < CASE WHEN sold::numeric + credited = 1 THEN 1
                ELSE least(100, greatest(2, div(sold::numeric + credited, 10))) END;
    ELSIF NOT EXISTS (SELECT FROM l402.reservations WHERE account = _account AND nonce = _nonce) THEN
        INSERT INTO l402.tombstones VALUES (_account, _nonce) ON CONFLICT DO NOTHING;
    END IF;
END $$;

CREATE FUNCTION l402.credit(_account bytea, _units bigint, _event bytea, _expires_at bigint) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM l402.check_session();
    PERFORM l402.lock_account(_account, _expires_at);
    INSERT INTO l402.events VALUES (_account, _event) ON CONFLICT DO NOTHING;
    IF FOUND THEN
        UPDATE l402.accounts SET credited = credited + least(_units, 9223372036854775806 - credited)
        WHERE account = _account;
    END IF;
END $$;

CREATE FUNCTION l402.revoke(_kind smallint, _subject bytea, _issued_before bigint) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM l402.check_session();
    INSERT INTO l402.revocations AS r VALUES (_kind, _subject, _issued_before)
    ON CONFLICT (kind, subject) DO UPDATE SET issued_before = greatest(r.issued_before, _issued_before);
END $$;

INSERT INTO l402.schema_version VALUES (1);
