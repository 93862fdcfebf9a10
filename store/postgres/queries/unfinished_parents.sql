-- The parents of some failed or canceled jobs that did not complete either, and are not retried.
SELECT d.child_id, d.parent_id, p.state
FROM tenure.dependency d JOIN tenure.history p ON p.id = d.parent_id
WHERE d.child_id = ANY (%(ids)s) AND p.state <> 'completed' AND p.retried_by IS NULL
  AND d.parked_attempt IS NULL
ORDER BY d.child_id, d.parent_id
