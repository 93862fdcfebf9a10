-- Jobs for which an attempt that parks would wait, at whatever remove, and which are no children of its job.
-- Whom a job waits for is fixed when it is submitted, so the answer holds; a parked job waits for its own children only.
WITH RECURSIVE chain (id, waits_for) AS (
    SELECT * FROM unnest(%(parked)s::uuid[], %(children)s::uuid[]) AS g
    UNION
    SELECT c.id, d.parent_id
    FROM chain c JOIN tenure.job j ON j.id = c.waits_for AND j.state = 'waiting' AND j.parked_attempt IS NULL
                 JOIN tenure.dependency d ON d.child_id = j.id AND d.parent_state IS NULL
)
SELECT c.id::text, c.waits_for
FROM chain c
WHERE NOT EXISTS (SELECT FROM tenure.job j WHERE j.id = c.waits_for AND j.parent_id = c.id)
  AND NOT EXISTS (SELECT FROM tenure.history h WHERE h.id = c.waits_for AND h.parent_id = c.id)
