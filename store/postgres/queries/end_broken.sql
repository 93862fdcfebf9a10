-- waiting -> canceled or failed, as asked for: those whose trigger can no longer be met. A broken parent is named.
WITH locked AS (
    SELECT id FROM tenure.job WHERE id = ANY (%(ids)s) AND state = 'waiting' ORDER BY id FOR UPDATE
), gone AS (
    DELETE FROM tenure.job j USING locked l WHERE j.id = l.id AND j.state = 'waiting'
    RETURNING j.*, CASE WHEN j.upstream_failure = 'fail' THEN 'failed' ELSE 'canceled' END AS next_state
), recorded AS (
    INSERT INTO tenure.history (id, namespace, kind, route, state, priority, activate_at, created_at, payload, attempt,
                                errors, crashes, finished_at, ttl_s, timeout_s, max_crashes, retry, labels,
                                idempotency_key, parent_id, progress, progress_message, error, cancel_requested, reason,
                                retry_of, start_within_s, start_by, job_timeout_s, deadline, limits, requires,
                                schedule_id, scheduled_at, trigger, upstream_failure, workflow_id, ref, unique_key,
                                replaced_by)
    SELECT id, namespace, kind, route, next_state, coalesce(asked_priority, priority), activate_at, created_at,
           payload, attempt,
           errors, crashes, now(), ttl_s, timeout_s, max_crashes, retry, labels,
           idempotency_key, parent_id, progress, progress_message, error, cancel_requested,
           coalesce((SELECT 'job ' || d.parent_id || ', which it depends on, '
                            || CASE d.parent_state WHEN 'failed' THEN 'failed' ELSE 'was canceled' END
                     FROM tenure.dependency d
                     WHERE d.child_id = g.id AND d.parked_attempt IS NOT DISTINCT FROM g.parked_attempt
                       AND d.parent_state <> 'completed'
                     ORDER BY d.parent_id LIMIT 1), 'a job it depends on did not complete'),
           retry_of, start_within_s, start_by, job_timeout_s, deadline, limits, requires,
           schedule_id, scheduled_at, trigger, upstream_failure, workflow_id, ref, unique_key, replaced_by
    FROM gone g
)
SELECT id, lane, attempt, next_state AS state FROM gone
