-- A page of the files of the archive, newest first.
SELECT id, namespace, key, jobs, first_id, last_id, finished_from, finished_until, size_bytes, sha256, schema_version,
       archived_at, storage_class,
       (SELECT e.expires_at FROM tenure.archive_end e WHERE e.id = f.id) AS expires_at
FROM tenure.archive_file f
WHERE state = 'done' AND (%(namespaces)s::text[] IS NULL OR namespace = ANY (%(namespaces)s))
  AND (%(namespace)s::text IS NULL OR namespace = %(namespace)s)
  AND id < %(before)s
ORDER BY id DESC LIMIT %(limit)s
