-- The claims under which attempts of some jobs ran that have ended.
SELECT job_id, claim_revision, lease FROM tenure.attempt WHERE job_id = ANY (%(ids)s)
