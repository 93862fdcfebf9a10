-- Members of a workflow that execute, or have been shown to and have not ended, oldest first.
SELECT id, namespace, kind, route, state, coalesce(asked_priority, priority) AS priority, activate_at, created_at, NULL::json AS payload, NULL::json AS result,
       attempt, errors, crashes, fence, worker, lease, claim_revision, started_at, NULL::timestamptz AS finished_at, ttl_s,
       timeout_s, max_crashes, retry, labels, idempotency_key, parent_id, progress, progress_message, error,
       cancel_requested, reason, retry_of, NULL::uuid AS retried_by, start_by, job_timeout_s, deadline, limits,
       requires, schedule_id, scheduled_at, trigger, upstream_failure, workflow_id, ref,
       asked_priority IS NOT NULL AS aged, unique_key, replaced_by, NULL::timestamptz AS deleted_at
FROM tenure.job
WHERE workflow_id = %(workflow_id)s AND (state = 'executing' OR id = ANY (%(shown)s::uuid[]))
ORDER BY id LIMIT %(limit)s
