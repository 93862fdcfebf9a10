-- The sweep for what slipped: terminal parents that some dependency still waits for, and children of broken ones.
SELECT DISTINCT d.parent_id AS id, false AS broken
FROM tenure.dependency d
WHERE d.parent_state IS NULL AND NOT EXISTS (SELECT FROM tenure.job j WHERE j.id = d.parent_id)
UNION
SELECT j.id, true
FROM tenure.job j JOIN tenure.dependency d ON d.child_id = j.id
WHERE j.state = 'waiting' AND d.parent_state IN ('failed', 'canceled')
LIMIT %(limit)s
