-- A credential that is no good from now on, or from when it was revoked first.
UPDATE tenure.token SET revoked_at = coalesce(revoked_at, now()) WHERE id = %(id)s
RETURNING id, name, role, namespaces, pools, subject, created_at, created_by, expires_at, revoked_at
