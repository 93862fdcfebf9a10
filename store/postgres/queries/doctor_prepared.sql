-- The transaction that has been prepared for longest, of those that are for too long.
SELECT gid, extract(epoch FROM now() - prepared)::float8
FROM pg_prepared_xacts
WHERE prepared < now() - make_interval(secs => %(long_s)s)
ORDER BY prepared
LIMIT 1
