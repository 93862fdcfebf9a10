-- Set how long jobs are kept after their end.
INSERT INTO tenure.retention_policy (namespace, kind, state, keep_s, archive)
VALUES (%(namespace)s, %(kind)s, %(state)s, %(keep_s)s, %(archive)s)
ON CONFLICT (namespace, kind, state)
    DO UPDATE SET keep_s = excluded.keep_s, archive = excluded.archive, updated_at = now()
RETURNING namespace, kind, state, keep_s, archive
