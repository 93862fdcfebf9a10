-- A page of the logs that a job's attempts have, before one attempt, the latest first.
SELECT attempt, last_seq, moved_at IS NOT NULL AS is_moved, namespace FROM tenure.log_head
WHERE job_id = %(id)s AND attempt < %(attempt)s ORDER BY attempt DESC LIMIT %(limit)s
