-- The replication slot that nobody reads and that keeps most of the log, with its bytes.
SELECT slot_name,
    CASE WHEN pg_is_in_recovery() THEN 0 ELSE pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn) END::bigint
FROM pg_replication_slots
WHERE NOT active AND restart_lsn IS NOT NULL
ORDER BY 2 DESC
LIMIT 1
