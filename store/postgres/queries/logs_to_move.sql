-- A page of the logs that lie here, by job and attempt; those of attempts that have ended, a while ago, are due to be moved.
SELECT h.job_id, h.attempt, h.namespace, h.last_seq, h.bytes,
       h.written_at <= now() - make_interval(secs => %(after_s)s) AND running.id IS NULL AS is_due
FROM (
    SELECT * FROM tenure.log_head
    WHERE moved_at IS NULL AND (job_id, attempt) > (%(job_id)s::uuid, %(attempt)s::int)
    ORDER BY job_id, attempt LIMIT %(limit)s
) h
LEFT JOIN LATERAL (SELECT j.id FROM tenure.job j WHERE j.id = h.job_id AND j.fence = h.fence LIMIT 1) running ON true
ORDER BY h.job_id, h.attempt
