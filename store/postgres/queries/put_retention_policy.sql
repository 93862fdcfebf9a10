-- Set how long jobs are kept after their end.
INSERT INTO tenure.retention_policy (namespace, kind, state, keep_s, archive, archive_keep_s, storage_class)
VALUES (%(namespace)s, %(kind)s, %(state)s, %(keep_s)s, %(archive)s, %(archive_keep_s)s, %(storage_class)s)
ON CONFLICT (namespace, kind, state)
    DO UPDATE SET keep_s = excluded.keep_s, archive = excluded.archive, archive_keep_s = excluded.archive_keep_s,
                  storage_class = excluded.storage_class, updated_at = now()
RETURNING namespace, kind, state, keep_s, archive, archive_keep_s, storage_class
