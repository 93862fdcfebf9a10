-- The ids of lanes, made where they do not exist.
WITH given AS (
    SELECT DISTINCT * FROM unnest(%(pools)s::text[], %(namespaces)s::text[], %(kinds)s::text[]) AS g (pool, namespace, kind)
), made AS (
    INSERT INTO tenure.lane (pool, namespace, kind) SELECT pool, namespace, kind FROM given ORDER BY 1, 2, 3
    ON CONFLICT DO NOTHING
    RETURNING id, pool, namespace, kind
)
SELECT id, pool, namespace, kind FROM made
UNION
SELECT l.id, l.pool, l.namespace, l.kind FROM tenure.lane l JOIN given USING (pool, namespace, kind)
