-- Forget a policy.
DELETE FROM tenure.retention_policy
WHERE namespace = %(namespace)s AND kind = %(kind)s AND state = %(state)s RETURNING namespace
