-- The parents of some jobs.
SELECT child_id, array_agg(parent_id ORDER BY parent_id) AS parents
FROM tenure.dependency WHERE child_id = ANY (%(ids)s) GROUP BY child_id
