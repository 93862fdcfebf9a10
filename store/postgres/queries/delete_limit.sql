-- Forget a limit.
DELETE FROM tenure.job_limit WHERE name = %(name)s RETURNING name
