-- Make way for keys that are to be taken again after they expired.
DELETE FROM tenure.idempotency i
USING unnest(%(namespaces)s::text[], %(scopes)s::text[], %(keys)s::text[]) AS g (namespace, scope, key)
WHERE (i.namespace, i.scope, i.key) = (g.namespace, g.scope, g.key) AND i.expires_at <= now()
