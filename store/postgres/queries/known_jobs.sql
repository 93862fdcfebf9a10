-- Which of these ids exist, active or finished.
SELECT id, namespace FROM tenure.job WHERE id = ANY (%(ids)s)
UNION ALL
SELECT id, namespace FROM tenure.history WHERE id = ANY (%(ids)s)
