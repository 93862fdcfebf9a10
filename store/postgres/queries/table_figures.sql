-- What Postgres' statistics say of tables with many writes: estimates, which it keeps by itself.
SELECT relname::text AS name, n_live_tup::bigint AS live_rows, n_dead_tup::bigint AS dead_rows,
       pg_total_relation_size(relid)::bigint AS bytes
FROM pg_stat_user_tables WHERE schemaname = 'tenure' AND relname = ANY (%(tables)s) ORDER BY relname
