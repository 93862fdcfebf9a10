-- Files of the archive that have expired by the policies of their jobs as these are now, oldest first, after one of them.
SELECT f.id, f.namespace, f.key, f.jobs, f.archived_at
FROM tenure.retention_policy p CROSS JOIN LATERAL (
    SELECT f.id, f.namespace, f.key, f.jobs, f.archived_at FROM tenure.archive_file f
    WHERE f.state = 'done'
      AND f.policy_namespace = p.namespace AND f.policy_kind = p.kind AND f.policy_state = p.state
      AND f.archived_at <= now() - make_interval(secs => p.archive_keep_s)
      AND (SELECT e.expires_at FROM tenure.archive_end e WHERE e.id = f.id) <= now()
      AND f.archived_at >= %(after_at)s::timestamptz AND (f.archived_at, f.id) > (%(after_at)s::timestamptz, %(after)s::uuid)
    ORDER BY f.archived_at, f.id LIMIT %(limit)s
) f
WHERE p.archive_keep_s IS NOT NULL
ORDER BY f.archived_at, f.id LIMIT %(limit)s
