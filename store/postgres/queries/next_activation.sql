-- Seconds until the next job's activation time, by Postgres' clock; null if there is none.
SELECT extract(epoch FROM min(activate_at) - now())::float8 FROM tenure.job WHERE NOT due AND state IN ('ready', 'restarting')
