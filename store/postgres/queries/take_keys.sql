-- Take idempotency keys for new jobs; a key that is taken fails the whole transaction.
INSERT INTO tenure.idempotency (namespace, scope, key, job_id, request_hash, expires_at)
SELECT namespace, coalesce(scope, ''), key, job_id, request_hash, now() + make_interval(secs => ttl_s)
FROM unnest(%(namespaces)s::text[], %(scopes)s::text[], %(keys)s::text[], %(ids)s::uuid[], %(hashes)s::bytea[],
            %(ttls)s::float8[])
     AS g (namespace, scope, key, job_id, request_hash, ttl_s)
ORDER BY 1, 2, 3
