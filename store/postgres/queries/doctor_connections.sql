-- How many connections are in use, and how many there may be.
SELECT (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend')::float8,
    current_setting('max_connections')::float8
