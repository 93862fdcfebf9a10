-- A window of history in id order, within a span of ends and after a key: which of it may go, about how many rows each
-- takes along, when the next of it expires, and where it ended. Bounded, however little of it has expired.
WITH looked_at AS MATERIALIZED (
    SELECT id, namespace, kind, state, created_at, finished_at, attempt FROM tenure.history
    WHERE finished_at >= %(from_at)s::timestamptz AND finished_at < %(until_at)s::timestamptz
      AND id > %(after)s AND id < %(before)s
    ORDER BY id LIMIT %(window)s
), combination AS (
    SELECT DISTINCT namespace, kind, state FROM looked_at
), ruled AS (
    SELECT s.*, p.keep_s FROM combination s CROSS JOIN LATERAL (
        SELECT keep_s, archive FROM tenure.retention_policy p
        WHERE p.namespace IN ('', s.namespace) AND p.kind IN ('', s.kind) AND p.state IN ('', s.state)
        ORDER BY p.namespace <> '' DESC, p.kind <> '' DESC, p.state <> '' DESC LIMIT 1
    ) p
    WHERE p.keep_s IS NOT NULL AND p.archive = %(archive)s
), judged AS MATERIALIZED (
    SELECT l.id, l.created_at, l.attempt, l.finished_at + make_interval(secs => r.keep_s) AS expires_at
    FROM looked_at l JOIN ruled r USING (namespace, kind, state)
), free AS MATERIALIZED (
    SELECT e.id FROM tenure.ended e
    WHERE e.id = ANY (ARRAY(SELECT id FROM judged WHERE expires_at <= now()))
      AND e.finished_at >= %(from_at)s::timestamptz AND e.finished_at < %(until_at)s::timestamptz
      AND NOT e.held AND NOT e.needed
), weighed AS MATERIALIZED (
    SELECT j.id, 1 + j.attempt
         + (SELECT count(*) FROM (SELECT FROM tenure.dependency d WHERE d.child_id = j.id LIMIT 10000) AS edge)
         + (SELECT count(*) FROM (SELECT FROM tenure.dependency d
                                  WHERE d.parent_id = j.id AND d.parent_state IS NOT NULL LIMIT 1000) AS edge)
         + (SELECT count(*) FROM (SELECT FROM tenure.artifact a WHERE a.job_id = j.id LIMIT 10000) AS file)
         + (SELECT count(*) FROM (SELECT FROM tenure.log l WHERE l.job_id = j.id LIMIT 10000) AS lines) AS weight
    FROM judged j WHERE j.id = ANY (ARRAY(SELECT id FROM free))
)
SELECT (SELECT count(*) FROM looked_at) AS seen, (SELECT id FROM looked_at ORDER BY id DESC LIMIT 1) AS last,
       ARRAY(SELECT id FROM weighed ORDER BY id) AS ids, ARRAY(SELECT weight FROM weighed ORDER BY id) AS weights,
       (SELECT min(created_at) FROM judged WHERE expires_at <= now()) AS made_at,
       (SELECT count(*) FROM judged WHERE expires_at <= now()) - (SELECT count(*) FROM free) AS kept,
       extract(epoch FROM (SELECT min(expires_at) FROM judged WHERE expires_at > now()) - now())::float8 AS next_s
