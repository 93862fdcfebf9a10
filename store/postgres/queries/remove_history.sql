-- Remove jobs with all that hangs on them, if they have expired and nothing keeps them, by the policies, holds and jobs of
-- now: what was seen before is not relied on. One entry in the audit log for each policy and namespace. With wanted: that
-- many, or none.
-- Run after lock_retention and lock_history in the same transaction.
WITH due AS MATERIALIZED (
    SELECT e.id, concat_ws('/', coalesce(nullif(p.namespace, ''), '*'), coalesce(nullif(p.kind, ''), '*'),
                           coalesce(nullif(p.state, ''), '*')) AS policy
    FROM tenure.ended e CROSS JOIN LATERAL (
        SELECT namespace, kind, state, keep_s, archive FROM tenure.retention_policy p
        WHERE p.namespace IN ('', e.namespace) AND p.kind IN ('', e.kind) AND p.state IN ('', e.state)
        ORDER BY p.namespace <> '' DESC, p.kind <> '' DESC, p.state <> '' DESC LIMIT 1
    ) p
    WHERE e.id = ANY (%(ids)s::uuid[])
      AND e.finished_at >= %(from_at)s::timestamptz AND e.finished_at < %(until_at)s::timestamptz
      AND e.finished_at + make_interval(secs => p.keep_s) <= now() AND p.archive = %(archive)s
      AND NOT e.held AND NOT e.needed
), gone AS (
    DELETE FROM tenure.history h
    WHERE h.id = ANY (ARRAY(SELECT id FROM due))
      AND h.finished_at >= %(from_at)s::timestamptz AND h.finished_at < %(until_at)s::timestamptz
    RETURNING h.id, h.namespace, h.workflow_id, h.finished_at, h.state, h.attempt
),
-- What hangs on a job goes here: other tables join with a DELETE of their own, by the ids of gone.
attempts AS (
    DELETE FROM tenure.attempt a
    WHERE a.job_id = ANY (ARRAY(SELECT id FROM gone))
      AND a.finished_at >= %(made_at)s::timestamptz - interval '1 h' AND a.finished_at < %(until_at)s::timestamptz
), files AS (
    DELETE FROM tenure.artifact a WHERE a.job_id = ANY (ARRAY(SELECT id FROM gone)) RETURNING a.job_id
), objects AS (
    -- What lies in the object store goes later: of jobs that have saved something, and of those whose attempts may have
    -- begun to. The archive goes on referring to that of its jobs.
    INSERT INTO tenure.object_to_delete (id, namespace)
    SELECT g.id, g.namespace FROM gone g
    WHERE NOT %(archive)s
      AND (g.id IN (SELECT job_id FROM files)
           OR (%(has_objects)s AND g.attempt > 0 AND (g.attempt > 1 OR g.state <> 'completed')))
    ON CONFLICT DO NOTHING
), edges AS (
    DELETE FROM tenure.dependency d WHERE d.child_id = ANY (ARRAY(SELECT id FROM gone))
), workflows AS (
    DELETE FROM tenure.workflow w
    WHERE w.id = ANY (ARRAY(SELECT DISTINCT workflow_id FROM gone WHERE workflow_id IS NOT NULL))
      AND NOT EXISTS (SELECT FROM tenure.job j WHERE j.workflow_id = w.id)
      AND NOT EXISTS (SELECT FROM tenure.history h
                      WHERE h.workflow_id = w.id AND h.id <> ALL (ARRAY(SELECT id FROM gone)))
), told AS (
    INSERT INTO tenure.audit (id, caller, role, action, namespace, target, outcome, detail)
    SELECT tenure.new_id(), %(leader)s::text, 'coordinator', 'retention.remove', g.namespace, d.policy, 'ok',
           json_build_object('jobs', count(*), 'first', (array_agg(g.id ORDER BY g.id))[1],
                             'last', (array_agg(g.id ORDER BY g.id DESC))[1],
                             'finished_from', min(g.finished_at), 'finished_until', max(g.finished_at),
                             'archive_file', %(archive_file)s::text)
    FROM gone g JOIN due d USING (id) GROUP BY d.policy, g.namespace
)
SELECT count(*) AS gone, tenure.assert_all(count(*), %(wanted)s::bigint) FROM gone
