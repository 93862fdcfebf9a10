-- Remove a file of the archive that has expired, if no label is held but those that none of its jobs has: its row, its object, and
-- the objects of its jobs, which are deleted later (coordinator/leftovers.py); with an entry in the audit log.
WITH gone AS (
    DELETE FROM tenure.archive_file f
    WHERE f.id = %(id)s AND f.state = 'done'
      AND (SELECT e.expires_at FROM tenure.archive_end e WHERE e.id = f.id) <= now()
      AND NOT EXISTS (SELECT FROM tenure.legal_hold l
                      WHERE (l.key, l.value) NOT IN (SELECT * FROM unnest(%(held_keys)s::text[], %(held_values)s::text[])))
    RETURNING f.id, f.namespace, f.key, f.jobs, f.policy_namespace, f.policy_kind, f.policy_state, f.finished_from,
              f.finished_until, f.first_id, f.last_id
), objects AS (
    INSERT INTO tenure.object_to_delete (id, namespace, archive_key)
    SELECT id, namespace, key FROM gone
    UNION ALL
    SELECT job, g.namespace, NULL FROM gone g, unnest(%(with_objects)s::uuid[]) AS job
    ON CONFLICT DO NOTHING
), told AS (
    INSERT INTO tenure.audit (id, caller, role, action, namespace, target, outcome, detail)
    SELECT tenure.new_id(), %(leader)s, 'coordinator', 'retention.remove_archived', namespace, key, 'ok',
           json_build_object('jobs', jobs, 'first', first_id, 'last', last_id, 'finished_from', finished_from,
                             'finished_until', finished_until,
                             'policy', concat_ws('/', coalesce(nullif(policy_namespace, ''), '*'),
                                                 coalesce(nullif(policy_kind, ''), '*'), coalesce(nullif(policy_state, ''), '*')))
    FROM gone
)
SELECT count(*) AS gone FROM gone
