-- The executing jobs in id order, a page at a time, for the reaper's sweep. No lock.
SELECT id::text AS id, fence, worker, lease, claim_revision, attempt, crashes, max_crashes, cancel_requested, ttl_s,
       errors, retry,
       coalesce(timeout_s < extract(epoch FROM now() - started_at) - %(timeout_grace_s)s, false)
           OR coalesce(deadline < now() - make_interval(secs => %(timeout_grace_s)s), false) AS timed_out,
       coalesce(deadline <= now(), false) AS past_deadline,
       reason, coalesce(extract(epoch FROM now() - cancel_requested_at), 0)::float8 AS canceling_s, cancel_grace_s
FROM tenure.job WHERE state = 'executing' AND job.id > %(after)s::uuid ORDER BY job.id LIMIT %(limit)s
