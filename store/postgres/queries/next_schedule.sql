-- Seconds until the next tick of any schedule, by Postgres' clock; null if there is none.
SELECT extract(epoch FROM min(next_at) - now())::float8 FROM tenure.schedule WHERE NOT paused
