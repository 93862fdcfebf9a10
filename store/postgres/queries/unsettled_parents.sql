-- The sweep for what slipped: terminal parents that some dependency still waits for, and jobs whose trigger can no longer
-- be met.
SELECT DISTINCT d.parent_id AS id, false AS broken
FROM tenure.dependency d
WHERE d.parent_state IS NULL AND NOT EXISTS (SELECT FROM tenure.job j WHERE j.id = d.parent_id)
UNION
SELECT j.id, true
FROM tenure.job j
WHERE j.state = 'waiting' AND j.held_back IS NOT TRUE
  AND (tenure.trigger_of(j) = 'any_completed' AND j.waiting_on = 0
       OR tenure.trigger_of(j) = 'all_completed' AND EXISTS (
           SELECT FROM tenure.dependency d
           WHERE d.child_id = j.id AND d.parked_attempt IS NOT DISTINCT FROM j.parked_attempt
             AND d.parent_state IN ('failed', 'canceled')))
LIMIT %(limit)s
