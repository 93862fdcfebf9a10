-- Hold what has a label; who set it first, and when, stays.
INSERT INTO tenure.legal_hold (key, value, reason, set_by)
VALUES (%(key)s, %(value)s, %(reason)s, %(set_by)s)
ON CONFLICT (key, value) DO UPDATE SET reason = excluded.reason
RETURNING key, value, reason, set_by, set_at
