-- A page of the files of the archive, newest first.
SELECT id, namespace, key, jobs, first_id, last_id, finished_from, finished_until, size_bytes, sha256, schema_version,
       archived_at, storage_class,
       (SELECT f.archived_at + make_interval(secs => p.archive_keep_s) FROM tenure.retention_policy p
        WHERE (p.namespace, p.kind, p.state) = (f.policy_namespace, f.policy_kind, f.policy_state)) AS expires_at
FROM tenure.archive_file f
WHERE state = 'done' AND (%(namespaces)s::text[] IS NULL OR namespace = ANY (%(namespaces)s))
  AND (%(namespace)s::text IS NULL OR namespace = %(namespace)s)
  AND id < %(before)s
ORDER BY id DESC LIMIT %(limit)s
