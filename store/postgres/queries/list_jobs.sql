-- Jobs newest first (ids are ordered by creation), after a key. Null filters let everything through.
SELECT id, namespace, kind, route, state, priority, activate_at, created_at, NULL::json AS payload, NULL::json AS result,
       attempt, errors, crashes, fence, worker, lease, claim_revision, started_at, finished_at, ttl_s,
       timeout_s, max_crashes, retry, labels, idempotency_key, parent_id, progress, progress_message, error,
       cancel_requested, reason, retry_of, retried_by, start_by, job_timeout_s, deadline, limits,
       requires, schedule_id, scheduled_at, trigger, upstream_failure, workflow_id, ref, aged,
       unique_key, replaced_by, deleted_at
FROM tenure.jobs
WHERE id < %(before)s
  AND (%(deleted)s::boolean OR deleted_at IS NULL)
  AND (%(namespace)s::text IS NULL OR namespace = %(namespace)s)
  AND (%(namespaces)s::text[] IS NULL OR namespace = ANY (%(namespaces)s))
  AND (%(kind)s::text IS NULL OR kind = %(kind)s)
  AND (%(route)s::text IS NULL OR route = %(route)s OR starts_with(route, %(route)s || '/'))
  AND (%(states)s::text[] IS NULL OR state = ANY (%(states)s))
  AND (%(labels)s::jsonb IS NULL OR labels @> %(labels)s)
  AND (%(parent_id)s::uuid IS NULL OR parent_id = %(parent_id)s)
  AND (%(workflow_id)s::uuid IS NULL OR workflow_id = %(workflow_id)s)
  AND (%(created_after)s::timestamptz IS NULL OR created_at >= %(created_after)s)
  AND (%(created_before)s::timestamptz IS NULL OR created_at < %(created_before)s)
ORDER BY id DESC LIMIT %(limit)s
