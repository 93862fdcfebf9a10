-- The ids of lanes, made where they do not exist.
WITH given AS (
    SELECT DISTINCT *
    FROM unnest(%(pools)s::text[], %(namespaces)s::text[], %(kinds)s::text[], %(limits)s::text[], %(requires)s::text[])
         AS g (pool, namespace, kind, limits, requires)
), made AS (
    INSERT INTO tenure.lane (pool, namespace, kind, limits, requires)
    SELECT pool, namespace, kind, limits, requires FROM given ORDER BY 1, 2, 3, 4, 5
    ON CONFLICT DO NOTHING
    RETURNING id, pool, namespace, kind, limits, requires
)
SELECT id, pool, namespace, kind, limits, requires FROM made
UNION
SELECT l.id, l.pool, l.namespace, l.kind, l.limits, l.requires
FROM tenure.lane l JOIN given USING (pool, namespace, kind, limits, requires)
