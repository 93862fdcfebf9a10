-- Which of these ids exist, active or finished.
SELECT id FROM tenure.job WHERE id = ANY (%(ids)s)
UNION ALL
SELECT id FROM tenure.history WHERE id = ANY (%(ids)s)
