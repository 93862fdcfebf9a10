-- Ask an executing attempt to stop; whoever reports next ends the job as canceled or completed.
UPDATE tenure.job SET cancel_requested = true, reason = %(reason)s, cancel_requested_at = coalesce(cancel_requested_at, now())
WHERE id = ANY (%(ids)s) AND state = 'executing'
RETURNING id, fence, worker
