-- The parents of some jobs, as asked for at the submit.
SELECT child_id, array_agg(parent_id ORDER BY parent_id) AS parents
FROM tenure.dependency WHERE child_id = ANY (%(ids)s) AND parked_attempt IS NULL GROUP BY child_id
