-- A bounded window of the audit log, newest first and before a key: what matches of it, and, as the last row, where it ended
-- and how much was looked at. Null filters let everything through. However rare what is looked for is, a call reads no more.
WITH looked_at AS MATERIALIZED (
    SELECT at, id, caller, role, action, namespace, target, outcome, detail FROM tenure.audit
    WHERE (at, id) < (coalesce(%(before)s::timestamptz, 'infinity'), %(before_id)s::uuid)
      AND at >= coalesce(%(since)s::timestamptz, '-infinity')
    ORDER BY at DESC, id DESC LIMIT %(window)s
), matching AS (
    SELECT * FROM looked_at
    WHERE (%(caller)s::text IS NULL OR caller = %(caller)s)
      AND (%(action)s::text IS NULL OR starts_with(action, %(action)s))
      AND (%(namespace)s::text IS NULL OR namespace = %(namespace)s)
      AND (%(target)s::text IS NULL OR target = %(target)s)
    ORDER BY at DESC, id DESC LIMIT %(limit)s
), last AS (
    SELECT at, id, (SELECT count(*) FROM looked_at) AS seen FROM looked_at ORDER BY at, id LIMIT 1
)
SELECT at, id, caller, role, action, namespace, target, outcome, detail::text AS detail, NULL::bigint AS seen FROM matching
UNION ALL
SELECT at, id, NULL, NULL, NULL, NULL, NULL, NULL, NULL, seen FROM last
ORDER BY seen NULLS FIRST, at DESC, id DESC
