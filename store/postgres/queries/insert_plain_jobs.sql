-- Write new jobs that may start at once and ask for nothing unusual, with the keys that they have: insert_jobs and
-- take_keys in one statement. A key that is taken fails it.
WITH given AS MATERIALIZED (
    SELECT *
    FROM unnest(%(ids)s::uuid[], %(namespaces)s::text[], %(kinds)s::text[], %(routes)s::text[], %(lanes)s::bigint[],
                %(priorities)s::smallint[], %(payloads)s::text[], %(ttls)s::real[], %(max_crashes)s::smallint[],
                %(keys)s::text[], %(hashes)s::bytea[])
         AS g (id, namespace, kind, route, lane, priority, payload, ttl_s, max_crashes, idempotency_key, request_hash)
), taken AS (
    INSERT INTO tenure.idempotency (namespace, scope, key, job_id, request_hash, expires_at)
    SELECT namespace, '', idempotency_key, id, request_hash, now() + make_interval(secs => %(key_ttl)s)
    FROM given
    WHERE idempotency_key IS NOT NULL
    ORDER BY namespace, idempotency_key
), written AS (
    INSERT INTO tenure.job (id, namespace, kind, route, lane, state, due, priority, activate_at, payload, ttl_s,
                            max_crashes, idempotency_key)
    SELECT id, namespace, kind, route, lane, 'ready', true, priority, now(), payload::json, ttl_s, max_crashes,
           idempotency_key
    FROM given
)
SELECT now() AS now
