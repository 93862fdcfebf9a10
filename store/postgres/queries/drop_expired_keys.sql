-- Forget keys whose time is over; a bounded number a call.
WITH gone AS (
    DELETE FROM tenure.idempotency WHERE ctid IN (
        SELECT ctid FROM tenure.idempotency WHERE expires_at <= now() LIMIT %(limit)s FOR UPDATE SKIP LOCKED)
    RETURNING 1
)
SELECT count(*) AS gone FROM gone
