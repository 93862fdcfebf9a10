-- failed, canceled: a new job for each, a copy of what was asked for with a fresh budget; the old row says which.
-- Those with parents begin as waiting; insert_retry_dependencies decides whether they need to.
-- Not for one that was retried before: a job has one retry, however often and from wherever it is asked for. Nor for one
-- that waits for all to complete, at whatever remove, and of those one failed and is not retried in the same go: it could
-- only be canceled again. Nor for one whose unique key another job has, or a later one of the same go is to have.
WITH RECURSIVE contested AS (
    SELECT h.id FROM tenure.history h
    WHERE h.id = ANY (%(ids)s::uuid[]) AND h.unique_key IS NOT NULL
      AND (EXISTS (SELECT FROM tenure.job j
                   WHERE (j.namespace, j.kind, j.unique_key) = (h.namespace, h.kind, h.unique_key)
                     AND j.replaced_by IS NULL)
           OR EXISTS (SELECT FROM tenure.history o
                      WHERE o.id = ANY (%(ids)s::uuid[]) AND o.id > h.id AND o.retried_by IS NULL
                        AND (o.namespace, o.kind, o.unique_key) = (h.namespace, h.kind, h.unique_key)))
), blocked (id) AS (
    SELECT d.child_id
    FROM tenure.dependency d JOIN tenure.history p ON p.id = d.parent_id JOIN tenure.history c ON c.id = d.child_id
    WHERE d.child_id = ANY (%(ids)s::uuid[]) AND c.trigger IS NULL AND d.parked_attempt IS NULL
      AND p.state <> 'completed' AND p.retried_by IS NULL
      AND (p.id <> ALL (%(ids)s::uuid[]) OR EXISTS (SELECT FROM contested o WHERE o.id = p.id))
    UNION
    SELECT d.child_id
    FROM blocked b JOIN tenure.dependency d ON d.parent_id = b.id JOIN tenure.history c ON c.id = d.child_id
    WHERE d.child_id = ANY (%(ids)s::uuid[]) AND c.trigger IS NULL AND d.parked_attempt IS NULL
), asked AS (
    SELECT * FROM unnest(%(ids)s::uuid[], %(new_ids)s::uuid[], %(lanes)s::bigint[]) AS g (id, new_id, lane)
), locked AS (
    SELECT h.id FROM tenure.history h JOIN asked a ON h.id = a.id
    WHERE h.state IN ('failed', 'canceled') AND h.retried_by IS NULL
      AND NOT EXISTS (SELECT FROM blocked b WHERE b.id = h.id)
      AND NOT EXISTS (SELECT FROM contested c WHERE c.id = h.id)
    ORDER BY h.id FOR UPDATE OF h
), marked AS (
    UPDATE tenure.history h SET retried_by = a.new_id
    FROM asked a, locked l
    WHERE a.id = h.id AND l.id = h.id AND h.retried_by IS NULL
    RETURNING h.*, a.new_id, a.lane, EXISTS (
                  SELECT FROM tenure.dependency d WHERE d.child_id = h.id AND d.parked_attempt IS NULL) AS waits
)
INSERT INTO tenure.job (id, namespace, kind, route, lane, state, due, priority, activate_at, payload, ttl_s, timeout_s,
                        max_crashes, retry, labels, parent_id, retry_of, start_within_s, start_by, job_timeout_s,
                        deadline, limits, requires, trigger, upstream_failure, workflow_id, ref, unique_key)
SELECT new_id, namespace, kind, route, lane, CASE WHEN waits THEN 'waiting' ELSE 'ready' END, NOT waits,
       priority, now(), payload, ttl_s, timeout_s, max_crashes, retry, labels, parent_id, id,
       start_within_s, CASE WHEN NOT waits THEN tenure.from_start(now(), start_within_s) END,
       job_timeout_s, CASE WHEN NOT waits THEN tenure.from_start(now(), job_timeout_s) END, limits, requires,
       trigger, upstream_failure, workflow_id, ref, unique_key
FROM marked
RETURNING id, retry_of, lane
