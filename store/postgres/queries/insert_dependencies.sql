-- Write edges and count afresh what each child waits for; a parent that is gone counts as canceled.
WITH edge AS (
    INSERT INTO tenure.dependency (child_id, parent_id, parent_state)
    SELECT e.child_id, e.parent_id,
           CASE WHEN EXISTS (SELECT FROM tenure.job p WHERE p.id = e.parent_id) THEN NULL
                ELSE coalesce((SELECT h.state FROM tenure.history h WHERE h.id = e.parent_id LIMIT 1), 'canceled') END
    FROM unnest(%(children)s::uuid[], %(parents)s::uuid[]) AS e (child_id, parent_id)
    RETURNING child_id, parent_state
), counted AS (
    SELECT child_id, count(*) FILTER (WHERE parent_state IS DISTINCT FROM 'completed') AS unfinished
    FROM edge GROUP BY child_id
)
UPDATE tenure.job j
SET waiting_on = c.unfinished + (j.held_back IS TRUE)::integer,
    state = CASE WHEN c.unfinished = 0 AND j.held_back IS NULL THEN 'ready' ELSE j.state END,
    start_by = CASE WHEN c.unfinished = 0 AND j.held_back IS NULL THEN coalesce(j.start_by, tenure.from_start(j.activate_at, j.start_within_s))
                    ELSE j.start_by END,
    deadline = CASE WHEN c.unfinished = 0 AND j.held_back IS NULL THEN tenure.from_start(j.activate_at, j.job_timeout_s) END,
    due = c.unfinished = 0 AND j.held_back IS NULL AND j.activate_at <= now()
FROM counted c WHERE j.id = c.child_id
