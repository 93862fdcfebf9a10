-- waiting, ready, restarting -> canceled: at once, since nobody executes them. A later start finds no row.
WITH locked AS (
    SELECT id FROM tenure.job WHERE id = ANY (%(ids)s) AND state IN ('waiting', 'ready', 'restarting')
    ORDER BY id FOR UPDATE
), gone AS (
    DELETE FROM tenure.job j USING locked l
    WHERE j.id = l.id AND j.state IN ('waiting', 'ready', 'restarting') RETURNING j.*
), recorded AS (
    INSERT INTO tenure.history (id, namespace, kind, route, state, priority, activate_at, created_at, payload, attempt,
                                errors, crashes, finished_at, ttl_s, timeout_s, max_crashes, retry, labels,
                                idempotency_key, parent_id, progress, progress_message, error, cancel_requested, reason,
                                retry_of, start_within_s, start_by, job_timeout_s, deadline, limits, requires,
                                schedule_id, scheduled_at, trigger, upstream_failure, workflow_id, ref, unique_key,
                                replaced_by)
    SELECT id, namespace, kind, route, 'canceled', coalesce(asked_priority, priority), activate_at, created_at,
           payload, attempt,
           errors, crashes, now(), ttl_s, timeout_s, max_crashes, retry, labels,
           idempotency_key, parent_id, progress, progress_message, error, cancel_requested, %(reason)s,
           retry_of, start_within_s, start_by, job_timeout_s, deadline, limits, requires,
           schedule_id, scheduled_at, trigger, upstream_failure, workflow_id, ref, unique_key, replaced_by
    FROM gone
)
SELECT id, lane, attempt, 'canceled' AS state, state = 'waiting' AND parked_attempt IS NOT NULL AS was_parked FROM gone
