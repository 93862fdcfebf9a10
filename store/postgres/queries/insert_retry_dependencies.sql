-- A retried job waits for what the old one waited for, each parent standing for its own last retry.
WITH RECURSIVE chain (child_id, parent_id, was) AS (
    SELECT j.id, d.parent_id, d.parent_state
    FROM tenure.job j JOIN tenure.dependency d ON d.child_id = j.retry_of AND d.parked_attempt IS NULL
    WHERE j.id = ANY (%(new_ids)s)
    UNION
    SELECT c.child_id, h.retried_by, NULL
    FROM chain c JOIN tenure.history h ON h.id = c.parent_id WHERE h.retried_by IS NOT NULL
), edge AS (
    INSERT INTO tenure.dependency (child_id, parent_id, parent_state)
    SELECT c.child_id, c.parent_id,
           CASE WHEN c.was = 'completed' THEN 'completed'  -- also where history has forgotten it
                WHEN EXISTS (SELECT FROM tenure.job p WHERE p.id = c.parent_id) THEN NULL
                ELSE coalesce((SELECT h.state FROM tenure.history h WHERE h.id = c.parent_id LIMIT 1), 'canceled') END
    FROM chain c
    WHERE NOT EXISTS (SELECT FROM tenure.history h WHERE h.id = c.parent_id AND h.retried_by IS NOT NULL)
    ON CONFLICT DO NOTHING
    RETURNING child_id, parent_state
), counted AS (
    SELECT child_id, count(*) FILTER (WHERE parent_state IS NULL) AS unended,
           count(*) FILTER (WHERE parent_state = 'completed') AS completed,
           count(*) FILTER (WHERE parent_state <> 'completed') AS otherwise
    FROM edge GROUP BY child_id
), judged AS (
    SELECT j.id, c.unended + CASE WHEN j.trigger IS NULL THEN c.otherwise ELSE 0 END AS waiting_on,
           tenure.verdict(j.trigger, c.unended, c.completed, c.otherwise) = 'run' AS runs, j.held_back IS NOT NULL AS held
    FROM tenure.job j JOIN counted c ON j.id = c.child_id
)
UPDATE tenure.job j
SET waiting_on = v.waiting_on,
    held_back = CASE WHEN v.held THEN v.runs END,
    state = CASE WHEN v.runs AND NOT v.held THEN 'ready' ELSE j.state END,
    start_by = CASE WHEN v.runs AND NOT v.held THEN coalesce(j.start_by, tenure.from_start(j.activate_at, j.start_within_s))
                    ELSE j.start_by END,
    deadline = CASE WHEN v.runs AND NOT v.held THEN tenure.from_start(j.activate_at, j.job_timeout_s) END,
    due = v.runs AND NOT v.held
FROM judged v WHERE j.id = v.id
RETURNING j.id
