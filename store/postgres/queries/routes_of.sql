-- Where jobs that have not ended are to run.
SELECT id::text, route FROM tenure.job WHERE id = ANY (%(ids)s::uuid[])
