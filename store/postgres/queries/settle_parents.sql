-- Tell dependants that parents are terminal: their children count down, and become ready when their trigger is met.
-- Run after the parents' end in the same transaction: its fresh snapshot sees edges that the end had waited for.
-- Only the edges that are settled now are read. With all_completed, waiting_on counts completed parents down and so never
-- reaches zero past a failed one; one of the other triggers that still waits has no completed parent (any_completed) or
-- does not ask (all_finished, any_finished). Edges of an earlier wait of the child do not count, nor any once its trigger
-- is met while it is held back. No more than 20,000 edges at once, so that a parent of ever so many can end: the sweep
-- (unsettled_parents.sql) settles the rest.
WITH settled AS (
    UPDATE tenure.dependency d SET parent_state = h.state
    FROM tenure.history h
    WHERE d.ctid = ANY (ARRAY(SELECT e.ctid FROM tenure.dependency e
                              WHERE e.parent_id = ANY (%(ids)s) AND e.parent_state IS NULL LIMIT 20000))
      AND d.parent_state IS NULL AND h.id = d.parent_id
    RETURNING d.child_id, d.parent_state, d.parked_attempt
), counted AS (
    SELECT child_id, parked_attempt, count(*) FILTER (WHERE parent_state = 'completed') AS completed,
           count(*) FILTER (WHERE parent_state <> 'completed') AS otherwise
    FROM settled GROUP BY child_id, parked_attempt
), locked AS (
    SELECT j.id, c.completed, c.otherwise, tenure.trigger_of(j) AS trigger, j.held_back,
           j.waiting_on - c.completed
               - CASE WHEN tenure.trigger_of(j) = 'all_completed' THEN 0 ELSE c.otherwise END AS left_over
    FROM tenure.job j JOIN counted c ON j.id = c.child_id AND j.parked_attempt IS NOT DISTINCT FROM c.parked_attempt
    WHERE j.state = 'waiting' AND j.held_back IS NOT TRUE ORDER BY j.id FOR NO KEY UPDATE OF j
), judged AS (
    SELECT id, left_over, held_back, tenure.verdict(trigger, left_over, completed, otherwise) AS verdict FROM locked
), decided AS (
    SELECT *, verdict = 'run' AND held_back IS NULL AS starts FROM judged
)
UPDATE tenure.job j
SET waiting_on = v.left_over, held_back = CASE WHEN v.held_back IS NOT NULL THEN v.verdict = 'run' END,
    state = CASE WHEN v.starts THEN 'ready' ELSE 'waiting' END,
    start_by = CASE WHEN v.starts THEN coalesce(j.start_by, tenure.from_start(j.activate_at, j.start_within_s))
                    ELSE j.start_by END,
    -- One that parked has had its first possible start.
    deadline = CASE WHEN v.starts THEN coalesce(j.deadline, tenure.from_start(j.activate_at, j.job_timeout_s))
                    ELSE j.deadline END,
    due = v.starts AND j.activate_at <= now()
FROM decided v WHERE j.id = v.id
RETURNING j.id, j.state, j.lane, v.verdict = 'broken' AS broken
