-- Set what is given of a namespace's settings.
INSERT INTO tenure.namespace (name, weight) VALUES (%(name)s, coalesce(%(weight)s, 1))
ON CONFLICT (name) DO UPDATE SET weight = coalesce(%(weight)s, tenure.namespace.weight), updated_at = now()
RETURNING name, weight
