-- Files of the archive that have expired by the policies of their jobs as these are now, after an id.
SELECT f.id, f.namespace, f.key, f.jobs, f.archived_at, f.policy_namespace, f.policy_kind, f.policy_state, f.finished_from,
       f.finished_until
FROM tenure.retention_policy p
JOIN tenure.archive_file f
  ON (f.policy_namespace, f.policy_kind, f.policy_state) = (p.namespace, p.kind, p.state)
WHERE f.state = 'done' AND f.id > %(after)s
  AND f.archived_at <= now() - make_interval(secs => p.archive_keep_s)
ORDER BY f.id LIMIT %(limit)s
