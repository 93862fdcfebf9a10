-- The jobs that idempotency keys stand for now.
SELECT i.namespace, i.scope, i.key, i.job_id, i.request_hash
FROM tenure.idempotency i
JOIN unnest(%(namespaces)s::text[], %(scopes)s::text[], %(keys)s::text[]) AS g (namespace, scope, key)
  USING (namespace, scope, key)
WHERE i.expires_at > now()
