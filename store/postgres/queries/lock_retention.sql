-- One at a time: a step of the removal, or a change of what it goes by. Whoever was answered that a hold is set knows that
-- no step is under way that has not seen it.
SELECT pg_advisory_xact_lock(hashtext('tenure.retention'))
