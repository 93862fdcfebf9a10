-- Make way for keys that are to be taken again after they expired. One that somebody has locked is left to whoever needs it.
WITH expired AS (
    SELECT i.namespace, i.scope, i.key FROM tenure.idempotency i
    JOIN unnest(%(namespaces)s::text[], %(scopes)s::text[], %(keys)s::text[]) AS g (namespace, scope, key)
      USING (namespace, scope, key)
    WHERE i.expires_at <= now() FOR UPDATE OF i SKIP LOCKED
)
DELETE FROM tenure.idempotency i USING expired e
WHERE (i.namespace, i.scope, i.key) = (e.namespace, e.scope, e.key)
