-- Set all of a kind's settings in a namespace ('': all namespaces).
INSERT INTO tenure.kind (namespace, name, settings) VALUES (%(namespace)s, %(name)s, %(settings)s::json)
ON CONFLICT (namespace, name) DO UPDATE SET settings = excluded.settings, updated_at = now()
RETURNING namespace, name, settings::text AS settings
