-- A credential: a token by the hash of its secret, or the subject of certificates; none where that is bound already.
INSERT INTO tenure.token (id, name, role, namespaces, pools, hash, subject, created_by, expires_at)
VALUES (%(id)s, %(name)s, %(role)s, %(namespaces)s::text[], %(pools)s::text[], %(hash)s::bytea, %(subject)s, %(created_by)s,
        now() + make_interval(secs => %(expires_in_s)s::float8))
ON CONFLICT (subject) WHERE revoked_at IS NULL DO NOTHING
RETURNING id, name, role, namespaces, pools, subject, created_at, created_by, expires_at, revoked_at
