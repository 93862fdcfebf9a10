-- Which of these jobs are there.
SELECT id FROM tenure.job WHERE id = ANY (%(ids)s::uuid[]) UNION SELECT id FROM tenure.history WHERE id = ANY (%(ids)s::uuid[])
