-- The labels under which nothing is removed.
SELECT key, value, reason, set_by, set_at FROM tenure.legal_hold ORDER BY key, value
