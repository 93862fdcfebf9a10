-- The children on which some jobs were parked and which have not ended.
SELECT d.parent_id AS id FROM tenure.dependency d
WHERE d.child_id = ANY (%(ids)s) AND d.parked_attempt IS NOT NULL AND d.parent_state IS NULL
