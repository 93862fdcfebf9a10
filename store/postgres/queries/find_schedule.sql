-- A schedule by its name or its id, which of its recent jobs have not ended, and the time.
SELECT s.*, now() AS now, ARRAY(SELECT j.id FROM tenure.job j WHERE j.id = ANY (s.recent_jobs) ORDER BY j.id) AS unfinished
FROM tenure.schedule s
WHERE s.namespace = %(namespace)s AND (s.name = %(name)s OR s.id = %(id)s)
