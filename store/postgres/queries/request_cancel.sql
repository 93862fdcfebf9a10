-- Ask an executing attempt to stop; whoever reports next ends the job as canceled or completed.
UPDATE tenure.job SET cancel_requested = true, reason = %(reason)s, cancel_requested_at = coalesce(cancel_requested_at, now()),
    cancel_grace_s = coalesce(%(grace_s)s::real, cancel_grace_s)
WHERE id = ANY (%(ids)s) AND state = 'executing'
RETURNING id, fence, worker
