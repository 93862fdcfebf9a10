-- Take unique keys away from the jobs that hold them: executing ones are asked to stop; idle ones are then canceled by the
-- same transaction, before anybody can start them.
WITH locked AS (
    SELECT j.id, g.new_id FROM tenure.job j JOIN unnest(%(ids)s::uuid[], %(new_ids)s::uuid[]) AS g (id, new_id) USING (id)
    WHERE j.replaced_by IS NULL ORDER BY j.id FOR UPDATE OF j
)
UPDATE tenure.job j
SET replaced_by = l.new_id, cancel_requested = j.cancel_requested OR j.state = 'executing', reason = %(reason)s,
    cancel_requested_at = CASE WHEN j.state = 'executing' THEN coalesce(j.cancel_requested_at, now())
                               ELSE j.cancel_requested_at END
FROM locked l WHERE j.id = l.id
RETURNING j.id, j.fence, j.worker, j.state
