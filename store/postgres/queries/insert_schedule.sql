-- Write a new schedule; no row if its name is taken, or its namespace has as many as it may.
INSERT INTO tenure.schedule (id, namespace, name, spec, paused, next_at)
SELECT %(id)s::uuid, %(namespace)s::text, %(name)s::text, %(spec)s::json, %(paused)s::boolean, %(next_at)s::timestamptz
WHERE (SELECT count(*) FROM (SELECT 1 FROM tenure.schedule WHERE namespace = %(namespace)s LIMIT %(most)s) AS found)
    < %(most)s
ON CONFLICT (namespace, name) DO NOTHING
RETURNING *, now() AS now
