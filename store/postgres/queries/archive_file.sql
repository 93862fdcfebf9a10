-- A file of the archive.
SELECT id, namespace, key, jobs, first_id, last_id, finished_from, finished_until, size_bytes, sha256, schema_version,
       archived_at
FROM tenure.archive_file WHERE id = %(id)s AND state = 'done'
