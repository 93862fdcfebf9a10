-- waiting, ready, restarting -> failed: those whose time is up. A start that came before wins, a later one finds no row.
WITH locked AS (
    SELECT id FROM tenure.job
    WHERE id = ANY (%(ids)s) AND state IN ('waiting', 'ready', 'restarting')
      AND ((attempt = 0 AND start_by <= now()) OR deadline <= now())
    ORDER BY id FOR UPDATE SKIP LOCKED
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
    SELECT id, namespace, kind, route, 'failed', coalesce(asked_priority, priority), activate_at, created_at,
           payload, attempt,
           errors, crashes, now(), ttl_s, timeout_s, max_crashes, retry, labels,
           idempotency_key, parent_id, progress, progress_message, error, cancel_requested,
           CASE WHEN attempt = 0 AND start_by <= now() THEN %(not_started)s ELSE %(not_ended)s END,
           retry_of, start_within_s, start_by, job_timeout_s, deadline, limits, requires, schedule_id, scheduled_at,
           trigger, upstream_failure, workflow_id, ref, unique_key, replaced_by
    FROM gone
)
SELECT id::text, lane, attempt, 'failed' AS state, 0::bigint AS claim_revision, 0::bigint AS lease, NULL::text[] AS slots FROM gone
