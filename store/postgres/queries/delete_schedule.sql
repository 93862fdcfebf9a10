-- Forget a schedule; the jobs that it made go on.
DELETE FROM tenure.schedule WHERE id = %(id)s RETURNING id
