-- Forget counters of which nothing is left, of days that are over.
DELETE FROM tenure.history_count WHERE jobs <= 0 AND day < current_date - 1
