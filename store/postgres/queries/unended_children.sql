-- The children on which some jobs were parked last, and which have not ended.
SELECT d.parent_id AS id FROM tenure.dependency d
WHERE d.child_id = ANY (%(ids)s) AND d.parked_attempt IS NOT NULL AND d.parent_state IS NULL
  AND d.parked_attempt = (SELECT max(m.parked_attempt) FROM tenure.dependency m WHERE m.child_id = d.child_id)
