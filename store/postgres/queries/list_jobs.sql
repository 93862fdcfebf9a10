-- Jobs newest first (ids are ordered by creation), after a key: those that match, of a bounded window of rows; so a filter
-- that leaves little over costs no more than one that does not. Null filters let everything through. If the window ended
-- before the page was full, each row says which id it has reached, and one is returned in any case; null: no more is there.
-- The conditions of the window must leave out nothing row by row, but whole tables and partitions (states, times of the end)
-- or what an index does (ids, a parent, a workflow, states that are not completed).
WITH matching AS MATERIALIZED (
    SELECT * FROM (
        SELECT id, namespace, kind, route, state, priority, activate_at, created_at, NULL::json AS payload,
               NULL::json AS result, attempt, errors, crashes, fence, worker, lease, claim_revision, started_at, finished_at,
               ttl_s, timeout_s, max_crashes, retry, labels, idempotency_key, parent_id, progress, progress_message, error,
               cancel_requested, reason, retry_of, retried_by, start_by, job_timeout_s, deadline, limits,
               requires, schedule_id, scheduled_at, trigger, upstream_failure, workflow_id, ref, aged,
               unique_key, replaced_by, deleted_at
        FROM tenure.jobs
        WHERE id < %(before)s AND id >= %(first)s
          AND (%(any_of)s::text[] IS NULL OR state = ANY (%(any_of)s))
          AND (%(from_week)s::timestamptz IS NULL OR finished_at >= %(from_week)s)
          AND (%(until_week)s::timestamptz IS NULL OR finished_at < %(until_week)s)
          AND (%(parent_id)s::uuid IS NULL OR parent_id = %(parent_id)s)
          AND (%(workflow_id)s::uuid IS NULL OR workflow_id = %(workflow_id)s)
        ORDER BY id DESC LIMIT %(window)s
    ) AS looked_at
    WHERE (%(deleted)s::boolean OR deleted_at IS NULL)
      AND (%(namespace)s::text IS NULL OR namespace = %(namespace)s)
      AND (%(namespaces)s::text[] IS NULL OR namespace = ANY (%(namespaces)s))
      AND (%(kind)s::text IS NULL OR kind = %(kind)s)
      AND (%(route)s::text IS NULL OR route = %(route)s OR starts_with(route, %(route)s || '/'))
      AND (%(states)s::text[] IS NULL OR state = ANY (%(states)s))
      AND (%(labels)s::jsonb IS NULL OR labels @> %(labels)s)
      AND (%(created_after)s::timestamptz IS NULL OR created_at >= %(created_after)s)
      AND (%(created_before)s::timestamptz IS NULL OR created_at < %(created_before)s)
      AND (%(finished_after)s::timestamptz IS NULL OR finished_at >= %(finished_after)s)
      AND (%(finished_before)s::timestamptz IS NULL OR finished_at < %(finished_before)s)
    ORDER BY id DESC LIMIT %(limit)s
), reached AS (
    SELECT CASE WHEN (SELECT count(*) FROM matching) < %(limit)s THEN (
        SELECT id FROM tenure.jobs
        WHERE id < %(before)s AND id >= %(first)s
          AND (%(any_of)s::text[] IS NULL OR state = ANY (%(any_of)s))
          AND (%(from_week)s::timestamptz IS NULL OR finished_at >= %(from_week)s)
          AND (%(until_week)s::timestamptz IS NULL OR finished_at < %(until_week)s)
          AND (%(parent_id)s::uuid IS NULL OR parent_id = %(parent_id)s)
          AND (%(workflow_id)s::uuid IS NULL OR workflow_id = %(workflow_id)s)
        ORDER BY id DESC OFFSET %(window)s - 1 LIMIT 1
    ) END AS reached
)
SELECT m.*, r.reached FROM reached r LEFT JOIN matching m ON true ORDER BY m.id DESC NULLS LAST
