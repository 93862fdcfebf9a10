-- A page of the jobs that an executing one waited for last, by id, and what became of them; as far as the bytes reach.
WITH page AS (
    SELECT d.parent_id, d.parent_state
    FROM tenure.job j
    JOIN tenure.dependency d ON d.child_id = j.id AND d.parked_attempt IS NOT DISTINCT FROM j.parked_attempt
    WHERE j.id = %(id)s AND d.parent_id > %(after)s ORDER BY d.parent_id LIMIT %(limit)s
), found AS (
    SELECT p.parent_id AS id, coalesce(j.kind, '') AS kind, coalesce(j.idempotency_key, '') AS key,
           coalesce(j.state, p.parent_state, 'canceled') AS state, j.result::text AS result, j.error::text AS error,
           coalesce(j.reason, '') AS reason, j.namespace, j.attempt, a.size_bytes, a.sha256, a.content_type, a.lost
    FROM page p LEFT JOIN LATERAL (
        SELECT namespace, kind, idempotency_key, state, attempt, result, error, reason FROM tenure.jobs
        WHERE id = p.parent_id ORDER BY finished_at NULLS LAST LIMIT 1) j ON true
    LEFT JOIN tenure.artifact a ON a.job_id = p.parent_id AND a.attempt = j.attempt AND a.name = '_result.json'
                               AND j.state = 'completed' AND j.result IS NULL
), measured AS (
    SELECT *, octet_length(coalesce(result, '')) + octet_length(coalesce(error, '')) AS bytes FROM found
), running AS (
    SELECT *, sum(bytes) OVER (ORDER BY id) - bytes AS before, count(*) OVER () AS found FROM measured
)
SELECT id, kind, key, state, result, error, reason, namespace, attempt, size_bytes, sha256, content_type, lost, found
FROM running WHERE before < %(bytes)s ORDER BY id
