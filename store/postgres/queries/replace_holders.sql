-- Take unique keys away from the jobs that hold them: executing ones are asked to stop; idle ones are then canceled by the
-- same transaction, before anybody can start them. Jobs that were replaced before and still execute are locked with them,
-- for an end does the same: it locks the replaced job and then writes the row of whoever is held behind it.
WITH asked AS (
    SELECT * FROM unnest(%(ids)s::uuid[], %(new_ids)s::uuid[]) AS g (id, new_id)
), wanted AS (
    SELECT id, new_id FROM asked
    UNION ALL
    SELECT r.id, NULL FROM asked a JOIN tenure.job h ON h.id = a.id AND h.replaced_by IS NULL
    JOIN tenure.job r ON (r.namespace, r.kind, r.unique_key) = (h.namespace, h.kind, h.unique_key)
    WHERE r.replaced_by IS NOT NULL
), locked AS (
    SELECT j.id, w.new_id FROM tenure.job j JOIN wanted w ON w.id = j.id ORDER BY j.id FOR UPDATE OF j
)
UPDATE tenure.job j
SET replaced_by = l.new_id, cancel_requested = j.cancel_requested OR j.state = 'executing', reason = %(reason)s,
    cancel_requested_at = CASE WHEN j.state = 'executing' THEN coalesce(j.cancel_requested_at, now())
                               ELSE j.cancel_requested_at END
FROM locked l WHERE j.id = l.id AND l.new_id IS NOT NULL AND j.replaced_by IS NULL
RETURNING j.id, j.fence, j.worker, j.state
