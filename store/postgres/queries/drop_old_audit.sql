-- Forget entries of the audit log whose time is over; a bounded number a call.
SELECT tenure.drop_old_audit(%(keep_days)s, %(limit)s) AS gone
