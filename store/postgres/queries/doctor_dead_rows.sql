-- Tables with many dead rows, and more than twice as many as live ones.
SELECT relname, n_live_tup, n_dead_tup
FROM pg_stat_user_tables
WHERE schemaname = 'tenure' AND n_dead_tup > %(dead)s AND n_dead_tup > 2 * n_live_tup
ORDER BY n_dead_tup DESC
