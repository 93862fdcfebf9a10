-- Workflows as they were submitted.
SELECT id, namespace, name, created_at, jobs, canceled_at, cancel_reason FROM tenure.workflow WHERE id = ANY (%(ids)s)
