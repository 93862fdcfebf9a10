-- What is needed to decide about attempts that did not complete. No lock: the fence guards the write that follows.
SELECT j.id::text, j.fence, j.errors, j.crashes, j.max_crashes, j.retry, j.cancel_requested, j.reason, j.state,
       coalesce(j.deadline <= now(), false) AS past_deadline
FROM tenure.job j JOIN unnest(%(ids)s::uuid[], %(fences)s::bigint[]) AS g (id, fence) ON j.id = g.id AND j.fence = g.fence
WHERE j.state = 'executing'
