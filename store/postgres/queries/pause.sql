-- Let nothing of this start.
INSERT INTO tenure.pause (subject, name, reason) VALUES (%(subject)s, %(name)s, %(reason)s)
ON CONFLICT (subject, name) DO UPDATE SET reason = excluded.reason
