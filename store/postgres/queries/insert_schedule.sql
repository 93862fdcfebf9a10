-- Write a new schedule; no row if its name is taken.
INSERT INTO tenure.schedule (id, namespace, name, spec, paused, next_at)
VALUES (%(id)s, %(namespace)s, %(name)s, %(spec)s, %(paused)s, %(next_at)s)
ON CONFLICT (namespace, name) DO NOTHING
RETURNING *, now() AS now
