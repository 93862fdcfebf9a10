-- Credentials newest first (ids are ordered by creation), after a key; those that are no good any more if asked for.
SELECT id, name, role, namespaces, pools, subject, created_at, created_by, expires_at, revoked_at FROM tenure.token
WHERE id < %(before)s
  AND (%(all)s::boolean OR (revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())))
ORDER BY id DESC LIMIT %(limit)s
