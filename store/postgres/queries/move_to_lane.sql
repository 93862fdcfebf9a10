-- Move jobs under a deeper pool from one lane to another; a bounded number a call. Scans: for new pools only.
UPDATE tenure.job SET lane = %(after)s
WHERE id IN (
    SELECT id FROM tenure.job
    WHERE lane = %(before)s AND (route = %(pool)s OR starts_with(route, %(pool)s || '/'))
    ORDER BY id LIMIT 20000 FOR UPDATE SKIP LOCKED
)
RETURNING id
