-- Forget keys whose time is over; a bounded number a call.
DELETE FROM tenure.idempotency
WHERE ctid IN (SELECT ctid FROM tenure.idempotency WHERE expires_at <= now() LIMIT %(limit)s FOR UPDATE SKIP LOCKED)
