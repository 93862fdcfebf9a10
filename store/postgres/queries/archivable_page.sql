-- A window of history in id order, within a span of ends and after a key: which of it is to be archived and may go, with about
-- what each takes; and, as the last row, where the window ended, how much was looked at, how much of it has expired and stays,
-- and when the next of it expires. As expired_page.sql decides; but jobs whose logs are still to be moved into the object store (coordinator/move_logs.py) wait for that.
WITH looked_at AS MATERIALIZED (
    SELECT id, namespace, kind, state, finished_at FROM tenure.history
    WHERE finished_at >= %(from_at)s::timestamptz AND finished_at < %(until_at)s::timestamptz
      AND id > %(after)s AND id < %(before)s
    ORDER BY id LIMIT %(window)s
), combination AS (
    SELECT DISTINCT namespace, kind, state FROM looked_at
), ruled AS (
    SELECT s.*, p.* FROM combination s CROSS JOIN LATERAL (
        SELECT p.namespace AS policy_namespace, p.kind AS policy_kind, p.state AS policy_state, keep_s, archive, storage_class
        FROM tenure.retention_policy p
        WHERE p.namespace IN ('', s.namespace) AND p.kind IN ('', s.kind) AND p.state IN ('', s.state)
        ORDER BY p.namespace <> '' DESC, p.kind <> '' DESC, p.state <> '' DESC LIMIT 1
    ) p
    WHERE p.keep_s IS NOT NULL AND p.archive
), judged AS MATERIALIZED (
    SELECT l.id, l.finished_at + make_interval(secs => r.keep_s) AS expires_at
    FROM looked_at l JOIN ruled r USING (namespace, kind, state)
), expired AS MATERIALIZED (
    SELECT id FROM judged WHERE expires_at <= now()
), free AS MATERIALIZED (
    SELECT e.id FROM tenure.ended e
    WHERE e.id = ANY (ARRAY(SELECT id FROM expired))
      AND e.finished_at >= %(from_at)s::timestamptz AND e.finished_at < %(until_at)s::timestamptz
      AND NOT e.held AND NOT e.needed
      AND (SELECT true FROM tenure.log_head l WHERE l.job_id = e.id AND l.moved_at IS NULL LIMIT 1) IS NULL
)
SELECT h.id, h.namespace, h.created_at, h.finished_at,
       500 + 500 * h.attempt + octet_length(h.payload::text) + coalesce(octet_length(h.result::text), 0)
           + coalesce(octet_length(h.error::text), 0)
           + CASE WHEN h.attempt < 2 THEN 0 ELSE (
                 SELECT coalesce(sum(octet_length(one.error)), 0) FROM (
                     SELECT a.error::text FROM tenure.attempt a
                     WHERE a.job_id = h.id AND a.finished_at >= h.created_at - interval '1 h'
                       AND a.finished_at < %(until_at)s::timestamptz LIMIT 1000) AS one (error)) END
           + 50 * (SELECT count(*) FROM (SELECT FROM tenure.dependency d WHERE d.child_id = h.id LIMIT 10000) AS edge)
           + 50 * (SELECT count(*) FROM (SELECT FROM tenure.dependency d
                                         WHERE d.parent_id = h.id AND d.parent_state IS NOT NULL LIMIT 1000) AS edge)
           + 300 * (SELECT count(*) FROM (SELECT FROM tenure.artifact a WHERE a.job_id = h.id LIMIT 10000) AS file)
           AS weight,
       r.policy_namespace, r.policy_kind, r.policy_state, r.storage_class,
       NULL::uuid AS last, NULL::bigint AS seen, NULL::bigint AS kept, NULL::float8 AS next_s
FROM tenure.history h JOIN ruled r USING (namespace, kind, state)
WHERE h.id = ANY (ARRAY(SELECT id FROM free))
  AND h.finished_at >= %(from_at)s::timestamptz AND h.finished_at < %(until_at)s::timestamptz
UNION ALL
SELECT NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, (SELECT id FROM looked_at ORDER BY id DESC LIMIT 1), (SELECT count(*) FROM looked_at),
       (SELECT count(*) FROM expired) - (SELECT count(*) FROM free),
       extract(epoch FROM (SELECT min(expires_at) FROM judged WHERE expires_at > now()) - now())::float8
ORDER BY seen NULLS FIRST, id
