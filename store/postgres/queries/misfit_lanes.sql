-- Lanes whose jobs may belong to a deeper pool that appeared since; the deepest first.
SELECT l.id, l.pool, l.namespace, l.kind, l.limits, l.requires, p.path AS deeper
FROM tenure.lane l JOIN tenure.pool p ON starts_with(p.path, l.pool || '/')
WHERE p.path = ANY (%(pools)s)
ORDER BY length(p.path) DESC, l.id
