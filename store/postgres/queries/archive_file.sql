-- A file of the archive.
SELECT id, namespace, key, jobs, first_id, last_id, finished_from, finished_until, size_bytes, sha256, schema_version,
       archived_at, storage_class,
       (SELECT e.expires_at FROM tenure.archive_end e WHERE e.id = f.id) AS expires_at
FROM tenure.archive_file f WHERE id = %(id)s AND state = 'done'
