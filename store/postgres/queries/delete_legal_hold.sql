-- Lift a hold.
DELETE FROM tenure.legal_hold WHERE key = %(key)s AND value = %(value)s RETURNING key
