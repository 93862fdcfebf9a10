-- Wait for a removal that is under way, and let none begin: a change of what it goes by, or a count.
SELECT pg_advisory_xact_lock(hashtext('tenure.retention'))
