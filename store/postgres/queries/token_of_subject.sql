-- The credential that is bound to a subject.
SELECT id, name, role, namespaces, pools, subject, created_at, created_by, expires_at, revoked_at FROM tenure.token
WHERE subject = %(subject)s AND revoked_at IS NULL
