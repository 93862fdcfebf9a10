-- executing -> waiting or ready: the attempt ends as parked under its fence, and its job waits for children of its own.
-- Run after lock_parents of those children: the fresh snapshot sees every end that came before, and none can slip in.
-- A park is no end: whoever parks on this job at the same moment need not wait (NO KEY), and so cannot deadlock with it.
-- Not where a cancel came in: the writer decides again.
WITH report AS (
    SELECT * FROM unnest(%(ids)s::uuid[], %(fences)s::bigint[], %(checkpoints)s::text[], %(triggers)s::text[])
             AS r (id, fence, checkpoint, trigger)
), locked AS (
    SELECT j.id, j.attempt, j.fence, j.worker, j.lease, j.claim_revision, j.started_at, j.slots, r.checkpoint, r.trigger
    FROM tenure.job j JOIN report r ON j.id = r.id AND j.fence = r.fence
    WHERE j.state = 'executing' AND NOT j.cancel_requested ORDER BY j.id FOR NO KEY UPDATE OF j
), edge AS (
    INSERT INTO tenure.dependency (child_id, parent_id, parent_state, parked_attempt)
    SELECT l.id, c.child,
           CASE WHEN EXISTS (SELECT FROM tenure.job p WHERE p.id = c.child) THEN NULL
                ELSE coalesce((SELECT h.state FROM tenure.history h WHERE h.id = c.child LIMIT 1), 'canceled') END,
           l.attempt
    FROM locked l JOIN unnest(%(parked)s::uuid[], %(children)s::uuid[]) AS c (id, child) ON c.id = l.id
    -- Parked on before: now it counts for this wait.
    ON CONFLICT (child_id, parent_id)
        DO UPDATE SET parent_state = excluded.parent_state, parked_attempt = excluded.parked_attempt
    RETURNING child_id, parent_state
), counted AS (
    SELECT l.id, count(e.child_id) FILTER (WHERE e.parent_state IS NULL) AS unended,
           count(*) FILTER (WHERE e.parent_state = 'completed') AS completed,
           count(*) FILTER (WHERE e.parent_state <> 'completed') AS otherwise
    FROM locked l LEFT JOIN edge e ON e.child_id = l.id GROUP BY l.id
), judged AS (
    SELECT l.*, c.unended + CASE WHEN l.trigger = 'all_completed' THEN c.otherwise ELSE 0 END AS waiting_on,
           tenure.verdict(l.trigger, c.unended, c.completed, c.otherwise) AS verdict
    FROM locked l JOIN counted c ON c.id = l.id
), moved AS (
    UPDATE tenure.job j
    SET state = CASE WHEN v.verdict = 'run' THEN 'ready' ELSE 'waiting' END, due = v.verdict = 'run',
        fence = NULL, worker = NULL, lease = NULL, claim_revision = NULL, started_at = NULL, slots = NULL,
        waiting_on = v.waiting_on, parked_attempt = v.attempt, parked_trigger = v.trigger,
        checkpoint = coalesce(v.checkpoint::json, j.checkpoint)
    FROM judged v WHERE j.id = v.id AND j.fence = v.fence AND j.state = 'executing' AND NOT j.cancel_requested
    RETURNING j.id, j.attempt, j.lane, j.state, v.fence, v.worker, v.lease, v.claim_revision, v.started_at, v.slots,
              v.verdict
), tried AS (
    INSERT INTO tenure.attempt (job_id, attempt, fence, worker, lease, claim_revision, outcome, started_at,
                                finished_at, slots)
    SELECT id, attempt, fence, worker, lease, claim_revision, 'parked', started_at, now(), slots FROM moved
)
SELECT id::text, fence, state, worker, lease, claim_revision, attempt, lane, slots, verdict = 'broken' AS broken FROM moved
