-- Members of a workflow that have ended since an instant, in the order of their end, after a key.
SELECT id, namespace, kind, route, state, priority, activate_at, created_at, NULL::json AS payload, NULL::json AS result,
       attempt, errors, crashes, fence, worker, NULL::bigint AS lease, NULL::bigint AS claim_revision, started_at,
       finished_at, ttl_s,
       timeout_s, max_crashes, retry, labels, idempotency_key, parent_id, progress, progress_message, error,
       cancel_requested, reason, retry_of, retried_by, start_by, job_timeout_s, deadline, limits,
       requires, schedule_id, scheduled_at, trigger, upstream_failure, workflow_id, ref, false AS aged,
       unique_key, replaced_by, deleted_at
FROM tenure.history
WHERE workflow_id = %(workflow_id)s AND finished_at >= %(since)s AND (finished_at, id) > (%(after_at)s, %(after_id)s)
ORDER BY finished_at, id LIMIT %(limit)s
