-- The ids of lanes, made where they do not exist. One that was not asked for in the last hour is marked as used, or else
-- may be dropped at this moment: then it is not told, and the next try makes it again.
WITH given AS (
    SELECT DISTINCT *
    FROM unnest(%(pools)s::text[], %(namespaces)s::text[], %(kinds)s::text[], %(limits)s::text[], %(requires)s::text[])
         AS g (pool, namespace, kind, limits, requires)
), made AS (
    INSERT INTO tenure.lane (pool, namespace, kind, limits, requires)
    SELECT pool, namespace, kind, limits, requires FROM given ORDER BY 1, 2, 3, 4, 5
    ON CONFLICT DO NOTHING
    RETURNING id, pool, namespace, kind, limits, requires
), used AS (
    UPDATE tenure.lane l SET used_at = now()
    FROM given g
    WHERE (l.pool, l.namespace, l.kind, l.limits, l.requires) = (g.pool, g.namespace, g.kind, g.limits, g.requires)
      AND l.used_at < now() - interval '1 hour'
    RETURNING l.id, l.pool, l.namespace, l.kind, l.limits, l.requires
)
SELECT id, pool, namespace, kind, limits, requires FROM made
UNION
SELECT id, pool, namespace, kind, limits, requires FROM used
UNION
SELECT l.id, l.pool, l.namespace, l.kind, l.limits, l.requires
FROM tenure.lane l JOIN given USING (pool, namespace, kind, limits, requires)
WHERE l.used_at >= now() - interval '1 hour'
