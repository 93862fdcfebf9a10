-- executing -> completed, failed, canceled: move to history under the fence, with the attempt.
-- The place of each row is looked up as in start_attempts.sql.
WITH gone AS (
    DELETE FROM tenure.job j USING (
        SELECT report.*, found.place
        FROM unnest(%(ids)s::uuid[], %(fences)s::bigint[], %(outcomes)s::text[], %(states)s::text[], %(results)s::text[],
                    %(errors)s::text[], %(reasons)s::text[], %(error_counts)s::int[], %(crash_counts)s::int[])
                 AS report (id, fence, outcome, next_state, result, error, reason, error_count, crash_count)
        CROSS JOIN LATERAL (SELECT f.ctid AS place FROM tenure.job f WHERE f.id = report.id LIMIT 1) found
        WHERE report.error_count BETWEEN 0 AND 2147483647 ORDER BY report.id
    ) r
    WHERE j.ctid = r.place AND j.id = r.id AND j.fence = r.fence AND j.state = 'executing'
    RETURNING j.*, r.outcome, r.next_state, r.result, r.error AS new_error, r.reason AS new_reason,
              r.error_count, r.crash_count
), recorded AS (
    INSERT INTO tenure.history (id, namespace, kind, route, state, priority, activate_at, created_at, payload, result,
                                attempt, errors, crashes, fence, worker, started_at, finished_at, ttl_s, timeout_s,
                                max_crashes, retry, labels, idempotency_key, parent_id, progress, progress_message,
                                error, cancel_requested, reason, retry_of, start_within_s, start_by,
                                job_timeout_s, deadline, limits, requires, schedule_id, scheduled_at, trigger,
                                upstream_failure, workflow_id, ref, unique_key, replaced_by)
    SELECT id, namespace, kind, route, next_state, coalesce(asked_priority, priority), activate_at, created_at, payload,
           result::json,
           attempt, errors + error_count, crashes + crash_count, fence, worker, started_at, now(), ttl_s, timeout_s,
           max_crashes, retry, labels, idempotency_key, parent_id,
           CASE WHEN next_state = 'completed' THEN 1 ELSE progress END, progress_message,
           CASE WHEN next_state = 'completed' THEN NULL ELSE coalesce(new_error::json, error) END, cancel_requested,
           coalesce(nullif(new_reason, ''), CASE WHEN next_state = 'completed' THEN '' ELSE reason END), retry_of,
           start_within_s, start_by, job_timeout_s, deadline, limits, requires, schedule_id, scheduled_at,
           trigger, upstream_failure, workflow_id, ref, unique_key, replaced_by
    FROM gone
), tried AS (
    INSERT INTO tenure.attempt (job_id, attempt, fence, worker, lease, claim_revision, outcome, error, started_at,
                                finished_at, slots)
    SELECT id, attempt, fence, worker, lease, claim_revision, outcome, new_error::json, started_at, now(), slots FROM gone
)
SELECT id::text, fence, next_state AS state, worker, lease, claim_revision, attempt, slots, lane FROM gone
