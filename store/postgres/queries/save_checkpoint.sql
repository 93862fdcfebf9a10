-- A checkpoint under the fence; returns the job if it was accepted.
UPDATE tenure.job SET checkpoint = %(checkpoint)s::text::json
WHERE id = %(id)s AND fence = %(fence)s AND state = 'executing'
RETURNING id
