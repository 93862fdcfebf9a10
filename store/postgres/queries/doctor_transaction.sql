-- The session whose transaction has been open for longest, of those that are open for too long.
SELECT pid, application_name, extract(epoch FROM now() - xact_start)::float8
FROM pg_stat_activity
WHERE xact_start < now() - make_interval(secs => %(long_s)s) AND backend_type = 'client backend'
ORDER BY xact_start
LIMIT 1
