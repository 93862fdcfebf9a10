-- Every attempt of jobs that have ended, oldest first.
SELECT job_id, attempt, fence, worker, lease, claim_revision, outcome, error, started_at, finished_at
FROM tenure.attempt
WHERE job_id = ANY (%(ids)s::uuid[])
  AND finished_at >= %(made_at)s::timestamptz - interval '1 h' AND finished_at < %(until_at)s::timestamptz
ORDER BY job_id, attempt, finished_at
