-- Submitting by SQL: tenure.submit_job writes a job in the caller's own transaction. Docs: docs/SUBMIT.md.
-- The rules are those of model/jobs.py, the hash that of model/request.py, the settings of kinds those of model/kinds.py,
-- the writing that of store/postgres/submit.py;
-- tests/postgres/test_submit_job.py feeds the same requests to both and compares.
-- What callers may set must not reach in here: each function has a search_path of its own, names schemas, and reads
-- string literals as they are written.

CREATE TYPE tenure.job_spec AS (
    kind text, payload text, namespace text, route text, priority integer, activate_at timestamptz,
    delay_s double precision, retry jsonb, ttl_s double precision, timeout_s double precision,
    start_within_s double precision, start_by timestamptz, job_timeout_s double precision, max_crashes integer,
    idempotency_key text, labels jsonb, limits text[], requires jsonb, depends_on uuid[], unique_key text,
    on_duplicate text, idempotency_ttl_s double precision, trigger text, upstream_failure text
);

-- A UUIDv7, as model/ids.py makes them.
CREATE FUNCTION tenure.new_id() RETURNS uuid
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
    SELECT encode(set_bit(set_bit(overlay(
        uuid_send(gen_random_uuid())
        PLACING substring(int8send(floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint) FROM 3) FROM 1 FOR 6
    ), 52, 1), 53, 1), 'hex')::uuid
$$;

-- One violation, or none where the rule holds. A rule that cannot be judged (a null) is broken.
CREATE FUNCTION tenure.violation(holds boolean, field text, rule text) RETURNS jsonb
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN holds IS TRUE THEN '[]'::jsonb
                ELSE jsonb_build_array(jsonb_build_object('field', field, 'description', rule)) END
$$;

CREATE FUNCTION tenure.is_name(name text) RETURNS boolean
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on AS $$
    SELECT name COLLATE "C" ~ '^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$'
$$;

-- Texts that are compared as they are: 1 to 255 characters without controls.
CREATE FUNCTION tenure.is_key(key text) RETURNS boolean
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on AS $$
    SELECT length(key) BETWEEN 1 AND 255 AND key !~ '[\u0001-\u001f\u007f]'
$$;

-- What is wrong with a payload that is JSON, or null.
CREATE FUNCTION tenure.payload_error(payload text) RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on AS $$
DECLARE
    bare text;
BEGIN
    IF octet_length(convert_to(payload, 'UTF8')) > 262144 THEN
        RETURN format('is %s bytes, at most 262144 are allowed', octet_length(convert_to(payload, 'UTF8')));
    END IF;
    -- Escaped backslashes out of the way, then the escape of NUL.
    IF position('\u0000' IN replace(payload, '\\', '')) > 0 THEN
        RETURN 'contains a NUL character (\u0000), which Postgres cannot store';
    END IF;
    IF length(payload) > 4300 OR length(payload) - length(translate(payload, '[{', '')) > 64 THEN
        bare := regexp_replace(payload, '"(?:[^"\\]|\\.)*"', '', 'g');  -- without its strings
        IF EXISTS (SELECT FROM regexp_split_to_table(bare, '[^0-9.eE+-]+') AS number
                   WHERE length(number) > 4300 AND number ~ '^-?[0-9]+$' AND length(ltrim(number, '-')) > 4300) THEN
            RETURN 'is not JSON that every reader takes: an integer of more than 4300 digits';
        END IF;
        bare := regexp_replace(bare, '[^][{}]+', '', 'g');
        FOR level IN 1..64 LOOP
            EXIT WHEN bare = '';
            bare := regexp_replace(bare, '\[\]|\{\}', '', 'g');  -- the innermost pairs
        END LOOP;
        IF bare <> '' THEN
            RETURN 'is nested deeper than 64 levels';
        END IF;
    END IF;
    RETURN NULL;
END $$;

-- What is wrong with a list, each of whose elements is right by itself or not: too many right ones count before wrong ones.
CREATE FUNCTION tenure.list_errors(is_right boolean[], most integer, field text, rule text) RETURNS jsonb
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN count(*) FILTER (WHERE r) > most
                THEN tenure.violation(false, field, format('at most %s are allowed', most))
                ELSE coalesce(jsonb_agg(jsonb_build_object('field', format('%s.%s', field, place - 1), 'description', rule)
                                        ORDER BY place) FILTER (WHERE r IS NOT TRUE), '[]') END
    FROM unnest(is_right) WITH ORDINALITY AS u (r, place)
$$;

-- What is wrong with a number of a retry policy; nothing where it is not given.
CREATE FUNCTION tenure.retry_number(retry jsonb, name text, low numeric, high numeric, whole boolean) RETURNS jsonb
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT tenure.violation(
        CASE WHEN NOT retry ? name THEN true
             WHEN jsonb_typeof(retry -> name) <> 'number' THEN false
             ELSE (retry ->> name)::numeric BETWEEN low AND high
                  AND (NOT whole OR (retry ->> name)::numeric = floor((retry ->> name)::numeric)) END,
        'retry.' || name, format('must be a %s, %s to %s', CASE WHEN whole THEN 'whole number' ELSE 'number' END, low, high))
$$;

CREATE FUNCTION tenure.retry_errors(retry jsonb) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    problems jsonb := '[]';
    name text;
BEGIN
    IF jsonb_typeof(retry) <> 'object' THEN
        RETURN tenure.violation(false, 'retry', 'must be an object');
    END IF;
    problems := tenure.retry_number(retry, 'max_attempts', 1, 100, true)
          || tenure.retry_number(retry, 'initial_backoff_s', 0, 86400, false)
          || tenure.retry_number(retry, 'multiplier', 1, 100, false)
          || tenure.retry_number(retry, 'max_backoff_s', 0, 604800, false)
          || tenure.retry_number(retry, 'jitter', 0, 1, false)
          || tenure.violation(NOT retry ? 'backoff' OR (retry -> 'backoff') IN ('"exponential"', '"linear"', '"fixed"'),
                              'retry.backoff', 'must be exponential, linear or fixed');
    IF retry ? 'non_retryable' THEN
        IF jsonb_typeof(retry -> 'non_retryable') <> 'array' THEN
            problems := problems || tenure.violation(false, 'retry.non_retryable', 'must be an array');
        ELSE
            problems := problems || tenure.list_errors(
                ARRAY(SELECT jsonb_typeof(element) = 'string' AND length(element #>> '{}') <= 255
                      FROM jsonb_array_elements(retry -> 'non_retryable') AS element),
                32, 'retry.non_retryable', 'must be a text of at most 255 characters');
        END IF;
    END IF;
    FOR name IN SELECT jsonb_object_keys(retry) LOOP
        problems := problems || tenure.violation(
            name IN ('max_attempts', 'backoff', 'initial_backoff_s', 'multiplier', 'max_backoff_s', 'jitter',
                     'non_retryable'), 'retry.' || name, 'is no field of a retry policy');
    END LOOP;
    RETURN problems;
END $$;

-- What is wrong with the form of labels; their names and values are a matter of relation_errors.
CREATE FUNCTION tenure.labels_errors(labels jsonb, field text) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF jsonb_typeof(labels) <> 'object' THEN
        RETURN tenure.violation(false, field, 'must be an object');
    ELSIF (SELECT count(*) FROM jsonb_each(labels) WHERE jsonb_typeof(value) = 'string') > 32 THEN
        RETURN tenure.violation(false, field, 'at most 32 are allowed');
    END IF;
    RETURN (SELECT coalesce(jsonb_agg(jsonb_build_object('field', field || '.' || key, 'description', 'must be a text')), '[]')
            FROM jsonb_each(labels) WHERE jsonb_typeof(value) <> 'string');
END $$;

-- The bounds of each field.
CREATE FUNCTION tenure.field_errors(spec tenure.job_spec) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on AS $$
DECLARE
    problems jsonb;
    earliest constant timestamptz := '0001-01-01 00:00:00+00';
    latest constant timestamptz := '9999-12-31 23:59:59.999999+00';
BEGIN
    problems := tenure.violation(spec.kind COLLATE "C" ~ '^[a-zA-Z0-9]([a-zA-Z0-9._:-]{0,126}[a-zA-Z0-9])?$', 'kind',
                 'must be 1 to 128 of letters, digits . _ : -, beginning and ending with a letter or digit')
          || tenure.violation(tenure.is_name(spec.namespace), 'namespace',
                 'must be 1 to 63 of a-z 0-9 . _ -, beginning and ending with a letter or digit')
          || tenure.violation(length(spec.route) <= 255 AND array_length(string_to_array(spec.route, '/'), 1) <= 8
                 AND NOT EXISTS (SELECT FROM unnest(string_to_array(spec.route, '/')) AS segment
                                 WHERE NOT tenure.is_name(segment)), 'route',
                 'must be 1 to 8 segments of 1 to 63 of a-z 0-9 . _ -, at most 255 characters')
          || tenure.violation(spec.priority BETWEEN -1000 AND 1000, 'priority', 'must be -1000 to 1000')
          || tenure.violation(spec.activate_at IS NULL OR spec.activate_at BETWEEN earliest AND latest, 'activate_at',
                 'must lie in the years 1 to 9999')
          || tenure.violation(spec.start_by IS NULL OR spec.start_by BETWEEN earliest AND latest, 'start_by',
                 'must lie in the years 1 to 9999')
          || tenure.violation(spec.delay_s IS NULL OR spec.delay_s BETWEEN 0 AND 31622400, 'delay_s',
                 'must be 0 to 31622400')
          || tenure.violation(spec.ttl_s BETWEEN 2 AND 3600, 'ttl_s', 'must be 2 to 3600')
          || tenure.violation(spec.timeout_s IS NULL OR (spec.timeout_s > 0 AND spec.timeout_s <= 2592000), 'timeout_s',
                 'must be above 0, at most 2592000')
          || tenure.violation(spec.start_within_s IS NULL OR (spec.start_within_s > 0 AND spec.start_within_s <= 31622400),
                 'start_within_s', 'must be above 0, at most 31622400')
          || tenure.violation(spec.job_timeout_s IS NULL OR (spec.job_timeout_s > 0 AND spec.job_timeout_s <= 31622400),
                 'job_timeout_s', 'must be above 0, at most 31622400')
          || tenure.violation(spec.max_crashes BETWEEN 1 AND 100, 'max_crashes', 'must be 1 to 100')
          || tenure.violation(spec.idempotency_key IS NULL OR tenure.is_key(spec.idempotency_key), 'idempotency_key',
                 'must be 1 to 255 characters without controls')
          || tenure.violation(spec.idempotency_ttl_s IS NULL OR spec.idempotency_ttl_s BETWEEN 600 AND 2678400,
                 'idempotency_ttl_s', 'must be 600 to 2678400')
          || tenure.violation(spec.unique_key IS NULL OR tenure.is_key(spec.unique_key), 'unique_key',
                 'must be 1 to 255 characters without controls')
          || tenure.violation(spec.on_duplicate IN ('refuse', 'existing', 'replace'), 'on_duplicate',
                 'must be refuse, existing or replace')
          || tenure.violation(spec.trigger IN ('all_completed', 'all_finished', 'any_completed', 'any_finished'), 'trigger',
                 'must be all_completed, all_finished, any_completed or any_finished')
          || tenure.violation(spec.upstream_failure IN ('cancel', 'fail'), 'upstream_failure', 'must be cancel or fail')
          || tenure.retry_errors(spec.retry)
          || tenure.labels_errors(spec.labels, 'labels')
          || tenure.labels_errors(spec.requires, 'requires')
          || tenure.list_errors(
                 ARRAY(SELECT l COLLATE "C" ~ '^[a-z0-9]([a-z0-9._:-]{0,126}[a-z0-9])?$' FROM unnest(spec.limits) AS l),
                 8, 'limits', 'must be 1 to 128 of a-z 0-9 . _ : -, beginning and ending with a letter or digit')
          || tenure.violation(coalesce(array_ndims(spec.limits) = 1, true), 'limits', 'must be of one dimension')
          || tenure.violation(
                 CASE WHEN array_ndims(spec.depends_on) > 1 THEN false
                      ELSE cardinality(spec.depends_on) <= 10000 AND array_position(spec.depends_on, NULL) IS NULL END,
                 'depends_on', 'must be ids, at most 10000');
    RETURN problems;
END $$;

-- The first rule between fields that is broken, as a list of one; none: []. Judged where every field is right by itself.
CREATE FUNCTION tenure.relation_errors(spec tenure.job_spec) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on AS $$
DECLARE
    maps constant jsonb := jsonb_build_object('labels', spec.labels, 'requires', spec.requires);
    name text;
    label record;
BEGIN
    IF spec.activate_at IS NOT NULL AND spec.delay_s IS NOT NULL THEN
        RETURN tenure.violation(false, 'activate_at', 'at most one of activate_at and delay_s may be given');
    ELSIF spec.start_by IS NOT NULL AND spec.start_within_s IS NOT NULL THEN
        RETURN tenure.violation(false, 'start_by', 'at most one of start_by and start_within_s may be given');
    ELSIF spec.start_by <= spec.activate_at THEN
        RETURN tenure.violation(false, 'start_by', 'must lie after activate_at');
    END IF;
    FOREACH name IN ARRAY ARRAY['labels', 'requires'] LOOP
        FOR label IN SELECT * FROM jsonb_each_text(maps -> name) LOOP
            IF tenure.is_name(label.key) IS NOT TRUE THEN
                RETURN tenure.violation(false, name, format('[%s] must be 1 to 63 of a-z 0-9 . _ -, beginning and ending'
                                                            ' with a letter or digit', left(label.key, 64)));
            ELSIF length(label.value) > 63
                OR label.value ~ ('[\u0001-\u001f\u007f-\u00a0\u00ad\u1680\u2000-\u200f\u2028-\u202f\u205f-\u206f\u3000'
                                  '\ud800-\uf8ff\ufeff\ufff0-\uffff\U000e0000-\U0010ffff]') THEN
                RETURN tenure.violation(false, name, format('[%s] must be printable, at most 63 characters', label.key));
            END IF;
        END LOOP;
    END LOOP;
    IF (SELECT count(DISTINCT l) FROM unnest(spec.limits) AS l) < cardinality(spec.limits) THEN
        RETURN tenure.violation(false, 'limits', 'must not name one twice');
    ELSIF spec.on_duplicate <> 'refuse' AND spec.unique_key IS NULL THEN
        RETURN tenure.violation(false, 'on_duplicate', 'needs a unique_key');
    ELSIF spec.idempotency_ttl_s IS NOT NULL AND spec.idempotency_key IS NULL THEN
        RETURN tenure.violation(false, 'idempotency_ttl_s', 'needs an idempotency_key');
    END IF;
    RETURN '[]';
END $$;

-- Refuses with TN010 what is malformed: the message names every field, DETAIL holds them as JSON, COLUMN is the first.
CREATE FUNCTION tenure.refuse_violations(problems jsonb) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF problems <> '[]' THEN
        RAISE EXCEPTION USING ERRCODE = 'TN010', DETAIL = problems::text, COLUMN = problems -> 0 ->> 'field',
            MESSAGE = (SELECT string_agg(format('%s: %s', v ->> 'field', v ->> 'description'), '; ')
                       FROM jsonb_array_elements(problems) AS v);
    END IF;
END $$;

CREATE FUNCTION tenure.micros(seconds double precision) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$ SELECT round(seconds * 1e6::float8)::bigint::text $$;

CREATE FUNCTION tenure.micros(instant timestamptz) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT (extract(epoch FROM instant) * 1000000)::bigint::text
$$;

-- A number of a retry policy; so small that Postgres knows no such float is zero, as where the API reads JSON.
CREATE FUNCTION tenure.retry_float(retry jsonb, name text) RETURNS double precision
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$ SELECT round((retry ->> name)::numeric, 300)::float8 $$;

CREATE FUNCTION tenure.parts(texts text[]) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT string_agg(length(t) || ':' || t, '' ORDER BY place) FROM unnest(texts) WITH ORDINALITY AS u (t, place)
$$;

CREATE FUNCTION tenure.pairs(labels jsonb) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT string_agg(length(key) || ':' || key || length(value) || ':' || value, '' ORDER BY key COLLATE "C")
    FROM jsonb_each_text(labels)
$$;

-- The hash of a request: model/request.py says of what. A field that has its default is null in this list.
CREATE FUNCTION tenure.request_hash(spec tenure.job_spec) RETURNS bytea
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT sha256(convert_to(string_agg(name || ':' || length(value) || ':' || value, '' ORDER BY place), 'UTF8'))
    FROM (VALUES
        (1, 'activate_at', tenure.micros(spec.activate_at)),
        (2, 'delay_s', tenure.micros(spec.delay_s)),
        (3, 'depends_on', tenure.parts(spec.depends_on::text[])),
        (4, 'idempotency_ttl_s', tenure.micros(spec.idempotency_ttl_s)),
        (5, 'job_timeout_s', tenure.micros(spec.job_timeout_s)),
        (6, 'kind', spec.kind),
        (7, 'labels', tenure.pairs(spec.labels)),
        (8, 'limits', tenure.parts(ARRAY(SELECT l FROM unnest(spec.limits) AS l ORDER BY l COLLATE "C"))),
        (9, 'max_crashes', nullif(spec.max_crashes, 3)::text),
        (10, 'namespace', nullif(spec.namespace, 'default')),
        (11, 'on_duplicate', nullif(spec.on_duplicate, 'refuse')),
        (12, 'payload', nullif(spec.payload, 'null')),
        (13, 'priority', nullif(spec.priority, 0)::text),
        (14, 'requires', tenure.pairs(spec.requires)),
        (15, 'retry.backoff', nullif(spec.retry ->> 'backoff', 'exponential')),
        (16, 'retry.initial_backoff_s', tenure.micros(nullif(tenure.retry_float(spec.retry, 'initial_backoff_s'), 1))),
        (17, 'retry.jitter', tenure.micros(nullif(tenure.retry_float(spec.retry, 'jitter'), 0.2::float8))),
        (18, 'retry.max_attempts', nullif((spec.retry ->> 'max_attempts')::numeric::integer, 3)::text),
        (19, 'retry.max_backoff_s', tenure.micros(nullif(tenure.retry_float(spec.retry, 'max_backoff_s'), 300))),
        (20, 'retry.multiplier', tenure.micros(nullif(tenure.retry_float(spec.retry, 'multiplier'), 2))),
        (21, 'retry.non_retryable', tenure.parts(ARRAY(SELECT jsonb_array_elements_text(spec.retry -> 'non_retryable')))),
        (22, 'route', nullif(spec.route, 'default')),
        (23, 'start_by', tenure.micros(spec.start_by)),
        (24, 'start_within_s', tenure.micros(spec.start_within_s)),
        (25, 'timeout_s', tenure.micros(spec.timeout_s)),
        (26, 'trigger', nullif(spec.trigger, 'all_completed')),
        (27, 'ttl_s', tenure.micros(nullif(spec.ttl_s, 10))),
        (28, 'unique_key', spec.unique_key),
        (29, 'upstream_failure', nullif(spec.upstream_failure, 'cancel'))
    ) AS field (place, name, value) WHERE value IS NOT NULL
$$;

-- The lane of a job, made where it does not exist: coordinator/lanes.py. Whoever needs the same new lane waits for this
-- transaction.
CREATE FUNCTION tenure.lane_of(spec tenure.job_spec) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    segments constant text[] := string_to_array(spec.route, '/');
    wanted tenure.lane;
BEGIN
    wanted.namespace := spec.namespace;
    wanted.kind := spec.kind;
    wanted.pool := coalesce((
        SELECT p.path FROM tenure.pool p
        WHERE p.path = ANY (ARRAY(SELECT array_to_string(segments[:n], '/') FROM generate_subscripts(segments, 1) AS n))
        ORDER BY length(p.path) DESC LIMIT 1), segments[1]);
    wanted.limits := coalesce((SELECT string_agg(l, ',' ORDER BY l COLLATE "C") FROM unnest(spec.limits) AS l), '');
    wanted.requires := coalesce((
        SELECT '{' || string_agg(to_json(key)::text || ':' || to_json(value)::text, ',' ORDER BY key COLLATE "C") || '}'
        FROM jsonb_each_text(spec.requires)), '');
    wanted.id := tenure.lane_id(wanted.pool, wanted.namespace, wanted.kind, wanted.limits, wanted.requires);
    IF NOT EXISTS (SELECT FROM tenure.lane l WHERE l.id = wanted.id) THEN
        INSERT INTO tenure.lane (pool, namespace, kind, limits, requires)
        VALUES (wanted.pool, wanted.namespace, wanted.kind, wanted.limits, wanted.requires)
        ON CONFLICT DO NOTHING;
    END IF;
    RETURN wanted.id;
END $$;

-- Takes an idempotency key for a job; returns the job that it stands for already, or null.
CREATE FUNCTION tenure.take_key(spec tenure.job_spec, id uuid) RETURNS uuid
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    hash constant bytea := tenure.request_hash(spec);
    earlier record;
BEGIN
    LOOP
        DELETE FROM tenure.idempotency i
        WHERE (i.namespace, i.scope, i.key) = (spec.namespace, '', spec.idempotency_key) AND i.expires_at <= now();
        INSERT INTO tenure.idempotency (namespace, scope, key, job_id, request_hash, expires_at)
        VALUES (spec.namespace, '', spec.idempotency_key, id, hash,
                now() + make_interval(secs => coalesce(spec.idempotency_ttl_s, 604800)))
        ON CONFLICT DO NOTHING;
        IF FOUND THEN
            RETURN NULL;
        END IF;
        SELECT i.job_id, i.request_hash INTO earlier FROM tenure.idempotency i
        WHERE (i.namespace, i.scope, i.key) = (spec.namespace, '', spec.idempotency_key);
        CONTINUE WHEN NOT FOUND;
        IF earlier.request_hash <> hash THEN
            RAISE EXCEPTION 'idempotency_key % stands for job %, which was asked for differently', spec.idempotency_key,
                earlier.job_id USING ERRCODE = 'TN011', COLUMN = 'idempotency_key', DETAIL = earlier.job_id::text,
                HINT = 'use another key for another request';
        END IF;
        RETURN earlier.job_id;
    END LOOP;
END $$;

-- Writes the row; false where another job has its unique key.
CREATE FUNCTION tenure.insert_job(spec tenure.job_spec, id uuid) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    waits constant boolean := cardinality(spec.depends_on) > 0;
    activates constant timestamptz := coalesce(spec.activate_at, now() + make_interval(secs => coalesce(spec.delay_s, 0)));
BEGIN
    INSERT INTO tenure.job (id, namespace, kind, route, lane, state, due, priority, activate_at, payload, ttl_s, timeout_s,
                            max_crashes, retry, labels, idempotency_key, start_within_s, start_by, job_timeout_s, deadline,
                            limits, requires, trigger, upstream_failure, unique_key)
    VALUES (id, spec.namespace, spec.kind, spec.route, tenure.lane_of(spec), CASE WHEN waits THEN 'waiting' ELSE 'ready' END,
            NOT waits AND activates <= now(), spec.priority, activates, spec.payload::json, spec.ttl_s, spec.timeout_s,
            spec.max_crashes, nullif(spec.retry, '{}')::json, nullif(spec.labels, '{}'), spec.idempotency_key,
            spec.start_within_s,
            coalesce(spec.start_by, CASE WHEN NOT waits THEN tenure.from_start(activates, spec.start_within_s) END),
            spec.job_timeout_s, CASE WHEN NOT waits THEN tenure.from_start(activates, spec.job_timeout_s) END,
            nullif(ARRAY(SELECT l FROM unnest(spec.limits) AS l ORDER BY l COLLATE "C"), '{}'), nullif(spec.requires, '{}'),
            nullif(spec.trigger, 'all_completed'), nullif(spec.upstream_failure, 'cancel'), spec.unique_key)
    ON CONFLICT (namespace, kind, unique_key) WHERE unique_key IS NOT NULL AND replaced_by IS NULL DO NOTHING;
    RETURN FOUND;
END $$;

-- Stops jobs for another one that takes their unique key, as replace_holders.sql and cancel_idle.sql do: those that execute
-- are asked to, the others are canceled at once, and with them what they were parked on. The leader's sweeps remind the
-- workers and go on with those that depend on them.
CREATE FUNCTION tenure.stop_for(new_id uuid, ids uuid[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    replacement uuid := new_id;  -- null for the children of parked ones: nobody takes their place
    why text := 'replaced by a later job with its unique key';
    parked uuid[];
BEGIN
    WHILE cardinality(ids) > 0 LOOP
        PERFORM FROM tenure.job j WHERE j.id = ANY (ids) ORDER BY j.id FOR UPDATE;
        UPDATE tenure.job j
        SET replaced_by = coalesce(replacement, j.replaced_by), reason = why, cancel_requested = true,
            cancel_requested_at = coalesce(j.cancel_requested_at, now())
        WHERE j.id = ANY (ids) AND j.state = 'executing' AND (replacement IS NOT NULL OR NOT j.cancel_requested);
        WITH gone AS (
            DELETE FROM tenure.job j WHERE j.id = ANY (ids) AND j.state IN ('waiting', 'ready', 'restarting') RETURNING j.*
        ), recorded AS (
            INSERT INTO tenure.history (id, namespace, kind, route, state, priority, activate_at, created_at, payload, attempt,
                                        errors, crashes, finished_at, ttl_s, timeout_s, max_crashes, retry, labels,
                                        idempotency_key, parent_id, progress, progress_message, error, cancel_requested,
                                        reason, retry_of, start_within_s, start_by, job_timeout_s, deadline, limits, requires,
                                        schedule_id, scheduled_at, trigger, upstream_failure, workflow_id, ref, unique_key,
                                        replaced_by)
            SELECT g.id, g.namespace, g.kind, g.route, 'canceled', coalesce(g.asked_priority, g.priority), g.activate_at,
                   g.created_at, g.payload, g.attempt, g.errors, g.crashes, now(), g.ttl_s, g.timeout_s, g.max_crashes,
                   g.retry, g.labels, g.idempotency_key, g.parent_id, g.progress, g.progress_message, g.error,
                   g.cancel_requested, why, g.retry_of, g.start_within_s, g.start_by, g.job_timeout_s, g.deadline, g.limits,
                   g.requires, g.schedule_id, g.scheduled_at, g.trigger, g.upstream_failure, g.workflow_id, g.ref,
                   g.unique_key, coalesce(replacement, g.replaced_by)
            FROM gone g
        )
        SELECT array_agg(g.id) INTO parked FROM gone g WHERE g.state = 'waiting' AND g.parked_attempt IS NOT NULL;
        ids := ARRAY(  -- unended_children.sql
            SELECT d.parent_id FROM tenure.dependency d
            WHERE d.child_id = ANY (parked) AND d.parked_attempt IS NOT NULL AND d.parent_state IS NULL
              AND d.parked_attempt = (SELECT max(m.parked_attempt) FROM tenure.dependency m WHERE m.child_id = d.child_id));
        replacement := NULL;
        why := 'the job that waited for it was canceled';
    END LOOP;
END $$;

-- Takes a unique key from whoever holds it.
CREATE FUNCTION tenure.replace_holder(spec tenure.job_spec, new_id uuid) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    -- With those that were replaced before and still execute: an end locks the replaced job, then whoever is held behind it.
    PERFORM FROM tenure.job j
    WHERE (j.namespace, j.kind, j.unique_key) = (spec.namespace, spec.kind, spec.unique_key) ORDER BY j.id FOR UPDATE;
    PERFORM tenure.stop_for(new_id, ARRAY(
        SELECT j.id FROM tenure.job j
        WHERE (j.namespace, j.kind, j.unique_key) = (spec.namespace, spec.kind, spec.unique_key) AND j.replaced_by IS NULL));
END $$;

-- Holds the parents in place and refuses ids that no job has.
CREATE FUNCTION tenure.lock_parents(parents uuid[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    missing uuid;
BEGIN
    PERFORM FROM tenure.job j WHERE j.id = ANY (parents) ORDER BY j.id FOR KEY SHARE;
    SELECT p INTO missing FROM unnest(parents) AS p
    WHERE NOT EXISTS (SELECT FROM tenure.job j WHERE j.id = p)
      AND NOT EXISTS (SELECT FROM tenure.history h WHERE h.id = p) LIMIT 1;
    IF FOUND THEN
        PERFORM tenure.refuse_violations(tenure.violation(false, 'depends_on', format('job %s does not exist', missing)));
    END IF;
END $$;

-- What is set for a kind in a namespace, over what is set for it in all of them. Nothing that was left unset.
CREATE FUNCTION tenure.kind_settings(namespace text, kind text) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    WITH found AS (
        SELECT k.namespace AS place, jsonb_strip_nulls(k.settings::jsonb) AS settings
        FROM tenure.kind k WHERE k.name = $2 AND k.namespace IN ('', $1)
    )
    SELECT coalesce((SELECT jsonb_object_agg(e.key, e.value ORDER BY f.place COLLATE "C")
                     FROM found f, jsonb_each(f.settings - 'retry') AS e WHERE e.value <> '[]'), '{}')
        || coalesce((SELECT jsonb_build_object('retry', jsonb_object_agg(e.key, e.value ORDER BY f.place COLLATE "C"))
                     FROM found f, jsonb_each(f.settings -> 'retry') AS e HAVING count(*) > 0), '{}')
$$;

-- A job as it is to be written: what its submitter left unset, as set for its kind, and the limits of that.
CREATE FUNCTION tenure.as_set_for_kind(asked tenure.job_spec) RETURNS tenure.job_spec
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    settings constant jsonb := tenure.kind_settings(asked.namespace, asked.kind);
    added constant text[] := ARRAY(
        SELECT name FROM (
            SELECT replace(replace(t, '{namespace}', asked.namespace), '{kind}', asked.kind) AS name, place
            FROM jsonb_array_elements_text(coalesce(settings -> 'limits', '[]')) WITH ORDINALITY AS l (t, place)
        ) AS named WHERE name <> ALL (coalesce(asked.limits, '{}')) ORDER BY place);
BEGIN
    asked.priority := coalesce(asked.priority, (settings ->> 'priority')::integer);
    asked.ttl_s := coalesce(asked.ttl_s, (settings ->> 'ttl_s')::float8);
    asked.timeout_s := coalesce(asked.timeout_s, (settings ->> 'timeout_s')::float8);
    asked.job_timeout_s := coalesce(asked.job_timeout_s, (settings ->> 'job_timeout_s')::float8);
    asked.max_crashes := coalesce(asked.max_crashes, (settings ->> 'max_crashes')::integer);
    asked.retry := coalesce(settings -> 'retry', '{}') || coalesce(asked.retry, '{}');
    IF asked.start_by IS NULL THEN  -- at most one of the two: its own word on when it must have started
        asked.start_within_s := coalesce(asked.start_within_s, (settings ->> 'start_within_s')::float8);
    END IF;
    asked.limits := asked.limits || added;
    PERFORM tenure.refuse_violations(tenure.violation(
        added = '{}' OR cardinality(asked.limits) <= 8, 'limits',
        format('with the %s that are set for its kind there are %s, at most 8 are allowed', cardinality(added),
               cardinality(asked.limits))));
    RETURN asked;
END $$;

-- The defaults of all kinds.
CREATE FUNCTION tenure.with_defaults(asked tenure.job_spec) RETURNS tenure.job_spec
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    asked.payload := coalesce(asked.payload, 'null');
    asked.route := coalesce(asked.route, 'default');
    asked.priority := coalesce(asked.priority, 0);
    asked.retry := coalesce(asked.retry, '{}');
    asked.ttl_s := coalesce(asked.ttl_s, 10);
    asked.max_crashes := coalesce(asked.max_crashes, 3);
    asked.labels := coalesce(asked.labels, '{}');
    asked.limits := coalesce(asked.limits, '{}');
    asked.requires := coalesce(asked.requires, '{}');
    asked.depends_on := coalesce(asked.depends_on, '{}');
    asked.on_duplicate := coalesce(asked.on_duplicate, 'refuse');
    asked.trigger := coalesce(asked.trigger, 'all_completed');
    asked.upstream_failure := coalesce(asked.upstream_failure, 'cancel');
    RETURN asked;
END $$;

-- Refuses with TN012 a job for a namespace that has as many as it may, by what the leader counted last.
CREATE FUNCTION tenure.refuse_full(wanted text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    full_one record;
BEGIN
    SELECT n.unfinished, n.backlog INTO full_one FROM tenure.namespace n WHERE n.name = wanted AND n.unfinished >= n.backlog;
    IF FOUND THEN
        RAISE EXCEPTION 'namespace % has % unfinished jobs, % are allowed', wanted, full_one.unfinished, full_one.backlog
            USING ERRCODE = 'TN012', DETAIL = full_one.backlog::text,
                  HINT = 'try again when some have finished, or have an operator raise the bound: tenure namespaces update';
    END IF;
END $$;

-- Submit a job: written in this transaction, run after its commit, noticed within a second of it. Returns its id, or
-- that of the job which the idempotency key or, with on_duplicate => 'existing', the unique key stands for.
-- Fields as in docs/JOBS.md; a null is a field that is not given.
-- TN010: malformed (DETAIL: every field and what is wrong, as JSON). TN011: a key is another job's (DETAIL: its id).
-- TN012: its namespace has as many unfinished jobs as it may (DETAIL: how many).
CREATE FUNCTION tenure.submit_job(
    kind text,
    payload json DEFAULT NULL,
    namespace text DEFAULT NULL,
    route text DEFAULT NULL,
    priority integer DEFAULT NULL,
    activate_at timestamptz DEFAULT NULL,
    delay_s double precision DEFAULT NULL,
    retry jsonb DEFAULT NULL,
    ttl_s double precision DEFAULT NULL,
    timeout_s double precision DEFAULT NULL,
    start_within_s double precision DEFAULT NULL,
    start_by timestamptz DEFAULT NULL,
    job_timeout_s double precision DEFAULT NULL,
    max_crashes integer DEFAULT NULL,
    idempotency_key text DEFAULT NULL,
    labels jsonb DEFAULT NULL,
    limits text[] DEFAULT NULL,
    requires jsonb DEFAULT NULL,
    depends_on uuid[] DEFAULT NULL,
    unique_key text DEFAULT NULL,
    on_duplicate text DEFAULT NULL,
    idempotency_ttl_s double precision DEFAULT NULL,
    trigger text DEFAULT NULL,
    upstream_failure text DEFAULT NULL
) RETURNS uuid
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on AS $$
DECLARE
    asked constant tenure.job_spec := ROW(
        kind, payload::text, coalesce(namespace, 'default'), route, priority, activate_at, delay_s, retry, ttl_s, timeout_s,
        start_within_s, start_by, job_timeout_s, max_crashes, idempotency_key, labels, limits, requires, depends_on,
        unique_key, on_duplicate, idempotency_ttl_s, trigger, upstream_failure)::tenure.job_spec;
    spec tenure.job_spec := tenure.with_defaults(asked);
    id uuid := tenure.new_id();
    earlier uuid;
    holder record;
    problems jsonb := tenure.field_errors(spec);
    payload_problem constant text := tenure.payload_error(spec.payload);
BEGIN
    IF problems = '[]' THEN
        problems := tenure.relation_errors(spec);
    END IF;
    PERFORM tenure.refuse_violations(problems || tenure.violation(payload_problem IS NULL, 'payload', payload_problem));

    IF spec.idempotency_key IS NOT NULL THEN  -- what is set for its kind is no part of what is asked
        earlier := tenure.take_key(spec, id);
        IF earlier IS NOT NULL THEN
            RETURN earlier;
        END IF;
    END IF;
    spec := tenure.with_defaults(tenure.as_set_for_kind(asked));
    PERFORM tenure.lock_parents(spec.depends_on);
    WHILE NOT tenure.insert_job(spec, id) LOOP
        IF spec.on_duplicate = 'replace' THEN
            PERFORM tenure.replace_holder(spec, id);
            CONTINUE;
        END IF;
        SELECT j.id, j.state INTO holder FROM tenure.job j
        WHERE (j.namespace, j.kind, j.unique_key) = (spec.namespace, spec.kind, spec.unique_key) AND j.replaced_by IS NULL;
        CONTINUE WHEN NOT FOUND;
        IF spec.on_duplicate = 'refuse' THEN
            RAISE EXCEPTION 'unique_key % is that of job %, which is %', spec.unique_key, holder.id, holder.state
                USING ERRCODE = 'TN011', COLUMN = 'unique_key', DETAIL = holder.id::text,
                      HINT = 'wait for its end or cancel it: tenure jobs cancel ' || holder.id;
        END IF;
        UPDATE tenure.idempotency i SET job_id = holder.id
        WHERE (i.namespace, i.scope, i.key) = (spec.namespace, '', spec.idempotency_key);
        RETURN holder.id;
    END LOOP;
    PERFORM tenure.refuse_full(spec.namespace);
    IF cardinality(spec.depends_on) > 0 THEN
        PERFORM tenure.insert_edges(array_fill(id, ARRAY[cardinality(spec.depends_on)]), spec.depends_on);
    END IF;
    RETURN id;
END $$;

-- Nobody but the owner and those who are told so calls anything of this schema: coordinators act as the owner. A role that may submit needs EXECUTE on this one
-- function and USAGE of the schema; tenure_submitter has both, where the owner of the schema may make roles.
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA tenure FROM PUBLIC;
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'tenure_submitter') THEN
        CREATE ROLE tenure_submitter NOLOGIN;
    END IF;
    GRANT USAGE ON SCHEMA tenure TO tenure_submitter;
    GRANT EXECUTE ON FUNCTION tenure.submit_job TO tenure_submitter;
EXCEPTION
    WHEN insufficient_privilege OR duplicate_object OR unique_violation THEN
        RAISE NOTICE 'role tenure_submitter was not made: %. docs/SUBMIT.md says how to make it', SQLERRM;
END $$;
