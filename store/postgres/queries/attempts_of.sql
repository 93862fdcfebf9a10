-- Every attempt of a job, oldest first; the executing one last, without an outcome.
SELECT job_id, attempt, fence, worker, lease, claim_revision, outcome, error, started_at, finished_at
FROM tenure.attempt WHERE job_id = %(id)s
UNION ALL
SELECT id, attempt, fence, worker, lease, claim_revision, NULL, NULL, started_at, NULL
FROM tenure.job WHERE id = %(id)s AND state = 'executing'
ORDER BY attempt, finished_at NULLS LAST
