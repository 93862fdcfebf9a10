-- executing -> ready or restarting: clear the fence, keep the attempt, come back when due.
-- Not where a cancel came in after that was decided: the writer decides again.
WITH report AS (
    SELECT * FROM unnest(%(ids)s::uuid[], %(fences)s::bigint[], %(outcomes)s::text[], %(states)s::text[],
                         %(errors)s::text[], %(reasons)s::text[], %(error_counts)s::int[], %(crash_counts)s::int[],
                         %(delays)s::float8[])
             AS r (id, fence, outcome, next_state, error, reason, error_count, crash_count, delay_s)
), locked AS (
    SELECT j.id, j.fence, j.worker, j.lease, j.claim_revision, j.started_at, j.slots, r.outcome, r.next_state, r.error,
           r.error_count, r.crash_count, r.delay_s
    FROM tenure.job j JOIN report r ON j.id = r.id AND j.fence = r.fence
    WHERE j.state = 'executing' AND NOT j.cancel_requested ORDER BY j.id FOR NO KEY UPDATE OF j
), moved AS (
    UPDATE tenure.job j
    SET state = l.next_state, fence = NULL, worker = NULL, lease = NULL, claim_revision = NULL, started_at = NULL,
        slots = NULL,
        errors = j.errors + l.error_count, crashes = j.crashes + l.crash_count,
        error = coalesce(l.error::json, j.error),
        activate_at = CASE WHEN l.delay_s > 0 THEN now() + make_interval(secs => l.delay_s) ELSE j.activate_at END,
        due = l.delay_s <= 0
    FROM locked l WHERE j.id = l.id AND j.fence = l.fence AND j.state = 'executing' AND NOT j.cancel_requested
    RETURNING j.id, j.attempt, j.lane, l.fence, l.worker, l.lease, l.claim_revision, l.started_at, l.slots, l.outcome,
              l.error, l.next_state
), tried AS (
    INSERT INTO tenure.attempt (job_id, attempt, fence, worker, lease, claim_revision, outcome, error, started_at,
                                finished_at, slots)
    SELECT id, attempt, fence, worker, lease, claim_revision, outcome, error::json, started_at, now(), slots FROM moved
)
SELECT id::text, fence, next_state AS state, worker, lease, claim_revision, attempt, lane, slots FROM moved
