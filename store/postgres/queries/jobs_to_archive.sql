-- Jobs that have ended, whole, in the order of their ids.
SELECT h.id, h.namespace, h.kind, h.route, h.state, h.priority, h.payload, h.result, h.error, h.reason, h.attempt, h.errors,
       h.crashes, h.fence, h.worker, h.created_at, h.activate_at, h.started_at, h.finished_at, h.ttl_s, h.timeout_s,
       h.max_crashes, h.retry, h.labels, h.idempotency_key, h.parent_id, h.schedule_id, h.scheduled_at, h.progress,
       h.progress_message, h.cancel_requested, h.retry_of, h.retried_by, h.start_within_s, h.start_by, h.job_timeout_s,
       h.deadline, h.limits, h.requires, h.trigger, h.upstream_failure, h.workflow_id, h.ref, h.unique_key, h.replaced_by,
       h.deleted_at,
       ARRAY(SELECT d.parent_id FROM tenure.dependency d
             WHERE d.child_id = h.id AND d.parked_attempt IS NULL ORDER BY d.parent_id) AS depends_on,
       coalesce((SELECT true FROM tenure.upload u WHERE u.job_id = h.id LIMIT 1), false) AS has_begun_uploads
FROM tenure.history h
WHERE h.id = ANY (%(ids)s::uuid[])
  AND h.finished_at >= %(from_at)s::timestamptz AND h.finished_at < %(until_at)s::timestamptz
ORDER BY h.id
