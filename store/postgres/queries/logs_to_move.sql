-- A page of the logs that lie here, by job and attempt; those of attempts that have ended, a while ago, are due to be moved.
SELECT h.job_id, h.attempt, h.namespace, h.last_seq, h.bytes,
       h.written_at <= now() - make_interval(secs => %(after_s)s)
       AND NOT EXISTS (SELECT FROM tenure.job j WHERE j.id = h.job_id AND j.fence = h.fence) AS is_due
FROM tenure.log_head h
WHERE h.moved_at IS NULL AND (h.job_id, h.attempt) > (%(job_id)s::uuid, %(attempt)s::int)
ORDER BY h.job_id, h.attempt LIMIT %(limit)s
