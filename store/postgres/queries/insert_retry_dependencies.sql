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
)
SELECT tenure.wait_or_begin(array_agg(child_id), array_agg(parent_state)) FROM edge
