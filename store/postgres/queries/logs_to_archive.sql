-- The logs of jobs' attempts, which lie in the object store.
SELECT job_id, attempt, lines, last_seq, bytes, object_bytes
FROM tenure.log_head WHERE job_id = ANY (%(ids)s::uuid[]) ORDER BY job_id, attempt
