-- The signing key can be replaced: the one before it is taken for a while, by who holds what was signed with it.
-- Coordinators of before know of no previous key: replace it once all are of this release.
ALTER TABLE tenure.signing_key
    ADD COLUMN signs_at        timestamptz NOT NULL DEFAULT now(),
    ADD COLUMN previous        bytea CHECK (length(previous) = 32),
    ADD COLUMN previous_until  timestamptz,
    ADD CHECK ((previous IS NULL) = (previous_until IS NULL));

-- A new key, with which coordinators sign once all of them have read it; the one before is taken for so long, at least
-- until then. 0: not at all, and at once, whatever is signed with it.
CREATE FUNCTION tenure.replace_signing_key(keep_s double precision, settle_s double precision) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF keep_s <> 0 AND keep_s < 2 * settle_s THEN
        RAISE EXCEPTION 'the key before it is taken for % s at least, or not at all', 2 * settle_s
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    UPDATE tenure.signing_key
    SET key = sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())),
        signs_at = now() + make_interval(secs => CASE WHEN keep_s = 0 THEN 0 ELSE settle_s END),
        previous = CASE WHEN keep_s <> 0 THEN key END,
        previous_until = CASE WHEN keep_s <> 0 THEN now() + make_interval(secs => keep_s) END
    WHERE keep_s = 0 OR previous_until IS NULL OR previous_until <= now();
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the key before this one is taken until %', (SELECT previous_until FROM tenure.signing_key)
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    INSERT INTO tenure.audit (id, caller, role, action, target, outcome, detail)
    VALUES (gen_random_uuid(), left('tenure db, as ' || session_user, 255), 'admin', 'signing_key.replace',
            'signing_key', 'ok', json_build_object('keep_s', keep_s));
END $$;
REVOKE ALL ON FUNCTION tenure.replace_signing_key(double precision, double precision) FROM PUBLIC;
