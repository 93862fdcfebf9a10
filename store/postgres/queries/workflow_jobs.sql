-- Members of a workflow in the order of their ids, after a key; without payloads and results.
SELECT id, namespace, kind, route, state, priority, activate_at, created_at, NULL::json AS payload, NULL::json AS result,
       attempt, errors, crashes, fence, worker, lease, claim_revision, started_at, finished_at, ttl_s,
       timeout_s, max_crashes, retry, labels, idempotency_key, parent_id, progress, progress_message, error,
       cancel_requested, reason, retry_of, retried_by, start_by, job_timeout_s, deadline, limits,
       requires, schedule_id, scheduled_at, trigger, upstream_failure, workflow_id, ref, aged,
       unique_key, replaced_by, deleted_at
FROM tenure.jobs WHERE workflow_id = %(workflow_id)s AND id > %(after)s
ORDER BY id LIMIT %(limit)s
