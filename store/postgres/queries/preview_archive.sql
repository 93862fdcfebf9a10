-- How many files of the archive have expired, by policy and namespace; as if a policy were set that is asked about.
WITH policy AS (
    SELECT namespace, kind, state, archive, archive_keep_s, created_at FROM tenure.retention_policy
    WHERE %(asked_state)s::text IS NULL
       OR (namespace, kind, state) <> (%(asked_namespace)s::text, %(asked_kind)s::text, %(asked_state)s::text)
    UNION ALL
    SELECT %(asked_namespace)s::text, %(asked_kind)s::text, %(asked_state)s::text,
           %(asked_archive_keep_s)s::bigint IS NOT NULL, %(asked_archive_keep_s)s::bigint, now()
    WHERE %(asked_state)s::text IS NOT NULL
)
SELECT f.policy_namespace, f.policy_kind, f.policy_state, f.namespace, count(*) AS files, sum(f.jobs)::bigint AS jobs,
       sum(f.size_bytes)::bigint AS size_bytes
FROM policy p
JOIN tenure.archive_file f ON (f.policy_namespace, f.policy_kind, f.policy_state) = (p.namespace, p.kind, p.state)
WHERE f.state = 'done' AND f.archived_at <= now() - make_interval(secs => p.archive_keep_s)
  AND NOT EXISTS (  -- as tenure.archive_end has it
      SELECT FROM policy l
      WHERE l.archive AND l.created_at >= f.planned_at - interval '5 s' AND l.namespace IN ('', f.namespace)
        AND (f.policy_kind = '' OR l.kind IN ('', f.policy_kind)) AND (f.policy_state = '' OR l.state IN ('', f.policy_state))
        AND (l.namespace <> '', l.kind <> '', l.state <> '') > (p.namespace <> '', p.kind <> '', p.state <> '')
        AND (l.archive_keep_s IS NULL OR f.archived_at > now() - make_interval(secs => l.archive_keep_s)))
  AND (%(namespace)s::text IS NULL OR f.namespace = %(namespace)s)
  AND (%(namespaces)s::text[] IS NULL OR f.namespace = ANY (%(namespaces)s))
GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4
