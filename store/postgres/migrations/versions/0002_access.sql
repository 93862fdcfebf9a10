-- Who may call: bearer tokens, of which only a hash is kept, and subjects of client certificates.
CREATE TABLE tenure.token (
    id          uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    name        text NOT NULL,
    role        text NOT NULL CHECK (role IN ('admin', 'operator', 'submitter', 'viewer', 'worker', 'runner')),
    namespaces  text[] NOT NULL DEFAULT '{*}',
    pools       text[] NOT NULL DEFAULT '{*}',
    -- SHA-256 of the secret part; the secret itself is shown once, when the token is made, and kept nowhere.
    hash        bytea CHECK (length(hash) = 32),
    -- Of client certificates; bound to one credential at a time.
    subject     text,
    created_at  timestamptz NOT NULL DEFAULT now(),
    created_by  text NOT NULL,
    expires_at  timestamptz,
    revoked_at  timestamptz,
    CHECK ((hash IS NULL) <> (subject IS NULL))
);
CREATE UNIQUE INDEX token_by_subject ON tenure.token (subject) WHERE revoked_at IS NULL;

-- The key by which coordinators sign the tokens of attempts; one for all of them, made here.
CREATE TABLE tenure.signing_key (
    id          smallint PRIMARY KEY DEFAULT 1 CHECK (id = 1),
    key         bytea NOT NULL CHECK (length(key) = 32)
);
INSERT INTO tenure.signing_key (key)
SELECT sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()));

-- Who did what: written in the transaction of what was done where there is one, never changed, dropped by age.
CREATE TABLE tenure.audit (
    id          uuid NOT NULL,
    at          timestamptz NOT NULL DEFAULT now(),
    caller      text NOT NULL,
    role        text NOT NULL,
    action      text NOT NULL,
    namespace   text,
    target      text NOT NULL,
    outcome     text NOT NULL,
    detail      json NOT NULL DEFAULT '{}',
    PRIMARY KEY (at, id)
);

-- Coordinators have partitions made without a right to make tables: as the owner of the schema, with its own search_path.
ALTER FUNCTION tenure.make_partitions(integer) SECURITY DEFINER;

-- Retention alone may delete. A guard against accidents and clumsy tools: who owns the table can take it away.
CREATE FUNCTION tenure.refuse_change() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF TG_OP = 'DELETE' AND current_setting('tenure.retention', true) = 'on' THEN
        RETURN OLD;
    END IF;
    RAISE EXCEPTION 'tenure.% is append-only', TG_TABLE_NAME USING ERRCODE = 'insufficient_privilege';
END $$;
CREATE TRIGGER audit_is_append_only BEFORE UPDATE OR DELETE ON tenure.audit
FOR EACH ROW EXECUTE FUNCTION tenure.refuse_change();
CREATE TRIGGER audit_is_not_truncated BEFORE TRUNCATE ON tenure.audit
FOR EACH STATEMENT EXECUTE FUNCTION tenure.refuse_change();

-- Drop the oldest entries, at most so many, that are older than this; return how many. As the owner, so that nobody who
-- writes the log needs a right to delete from it.
CREATE FUNCTION tenure.drop_old_audit(keep_days integer, most integer) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    gone bigint;
BEGIN
    IF keep_days IS NULL OR keep_days < 1 THEN
        RAISE EXCEPTION 'the audit log is kept for a day at least' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    PERFORM set_config('tenure.retention', 'on', true);
    DELETE FROM tenure.audit WHERE (at, id) IN (
        SELECT at, id FROM tenure.audit WHERE at < now() - make_interval(days => least(keep_days, 1000000))
        ORDER BY at, id LIMIT most);
    GET DIAGNOSTICS gone = ROW_COUNT;
    PERFORM set_config('tenure.retention', 'off', true);
    RETURN gone;
END $$;
REVOKE ALL ON FUNCTION tenure.drop_old_audit(integer, integer) FROM PUBLIC;

-- How fast a namespace may submit: new jobs per second (null: any number), and at once (null: what a second brings).
ALTER TABLE tenure.namespace
    ADD COLUMN submit_rate  double precision CHECK (submit_rate > 0),
    ADD COLUMN submit_burst bigint CHECK (submit_burst > 0);
