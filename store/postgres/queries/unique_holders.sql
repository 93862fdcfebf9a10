-- The jobs that hold unique keys now.
SELECT j.namespace, j.kind, j.unique_key, j.id, j.state
FROM tenure.job j
JOIN unnest(%(namespaces)s::text[], %(kinds)s::text[], %(keys)s::text[]) AS g (namespace, kind, unique_key)
  USING (namespace, kind, unique_key)
WHERE j.replaced_by IS NULL
