-- Tell dependants that parents are terminal: children of completed ones count down, and become ready at zero.
-- Run after the parents' end in the same transaction: its fresh snapshot sees edges that the end had waited for.
WITH settled AS (
    UPDATE tenure.dependency d SET parent_state = h.state
    FROM tenure.history h
    WHERE d.parent_id = ANY (%(ids)s) AND d.parent_state IS NULL AND h.id = d.parent_id
    RETURNING d.child_id, d.parent_state
), counted AS (
    SELECT child_id, count(*) FILTER (WHERE parent_state = 'completed') AS completed,
           bool_or(parent_state <> 'completed') AS broken
    FROM settled GROUP BY child_id
), locked AS (
    SELECT j.id, c.completed, c.broken FROM tenure.job j JOIN counted c ON j.id = c.child_id
    WHERE j.state = 'waiting' ORDER BY j.id FOR UPDATE OF j
)
UPDATE tenure.job j
SET waiting_on = j.waiting_on - l.completed,
    state = CASE WHEN j.waiting_on = l.completed THEN 'ready' ELSE 'waiting' END,
    start_by = CASE WHEN j.waiting_on = l.completed THEN coalesce(j.start_by, tenure.from_start(j.activate_at, j.start_within_s))
                    ELSE j.start_by END,
    deadline = CASE WHEN j.waiting_on = l.completed THEN tenure.from_start(j.activate_at, j.job_timeout_s) END,
    due = j.waiting_on = l.completed AND j.activate_at <= now()
FROM locked l WHERE j.id = l.id
RETURNING j.id, j.state, j.lane, l.broken
