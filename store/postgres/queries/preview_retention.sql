-- A window of history as expired_page.sql looks at it: what would go by which policy, and what of it is kept for now; and,
-- as the last row, where it ended and how much was looked at. With a policy that is asked about in the place of its like.
WITH policy AS (
    SELECT namespace, kind, state, keep_s FROM tenure.retention_policy
    WHERE %(asked_state)s::text IS NULL
       OR (namespace, kind, state) <> (%(asked_namespace)s::text, %(asked_kind)s::text, %(asked_state)s::text)
    UNION ALL
    SELECT %(asked_namespace)s::text, %(asked_kind)s::text, %(asked_state)s::text, %(asked_keep_s)s::bigint
    WHERE %(asked_state)s::text IS NOT NULL
), looked_at AS MATERIALIZED (
    SELECT id, namespace, kind, state, finished_at FROM tenure.history
    WHERE finished_at >= %(from_at)s::timestamptz AND finished_at < %(until_at)s::timestamptz
      AND id > %(after)s AND id < %(before)s
    ORDER BY id LIMIT %(window)s
), combination AS (
    SELECT DISTINCT namespace, kind, state FROM looked_at
    WHERE (%(namespace)s::text IS NULL OR namespace = %(namespace)s)
      AND (%(namespaces)s::text[] IS NULL OR namespace = ANY (%(namespaces)s))
), ruled AS (
    SELECT s.*, p.* FROM combination s CROSS JOIN LATERAL (
        SELECT p.namespace AS of_namespace, p.kind AS of_kind, p.state AS of_state, p.keep_s FROM policy p
        WHERE p.namespace IN ('', s.namespace) AND p.kind IN ('', s.kind) AND p.state IN ('', s.state)
        ORDER BY p.namespace <> '' DESC, p.kind <> '' DESC, p.state <> '' DESC LIMIT 1
    ) p
    WHERE p.keep_s IS NOT NULL
), expired AS MATERIALIZED (
    SELECT l.id FROM looked_at l JOIN ruled r USING (namespace, kind, state)
    WHERE l.finished_at + make_interval(secs => r.keep_s) <= now()
), judged AS MATERIALIZED (
    SELECT e.namespace, e.kind, e.state, e.finished_at, e.held, e.needed FROM tenure.ended e
    WHERE e.id = ANY (ARRAY(SELECT id FROM expired))
      AND e.finished_at >= %(from_at)s::timestamptz AND e.finished_at < %(until_at)s::timestamptz
)
SELECT r.of_namespace, r.of_kind, r.of_state, j.namespace, j.state,
       count(*) FILTER (WHERE NOT j.held AND NOT j.needed) AS jobs, count(*) FILTER (WHERE j.held) AS held,
       count(*) FILTER (WHERE j.needed AND NOT j.held) AS needed, min(j.finished_at) AS oldest, NULL::uuid AS last, NULL::bigint AS seen
FROM judged j JOIN ruled r USING (namespace, kind, state) GROUP BY 1, 2, 3, 4, 5
UNION ALL
SELECT NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, (SELECT id FROM looked_at ORDER BY id DESC LIMIT 1),
       (SELECT count(*) FROM looked_at)
ORDER BY seen NULLS FIRST
