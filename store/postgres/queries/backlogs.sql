-- The bounds of backlogs, what was counted last, and how long ago.
SELECT name, backlog, coalesce(unfinished, 0) AS unfinished,
       coalesce(extract(epoch FROM now() - counted_at), 1e9)::float8 AS age_s
FROM tenure.namespace WHERE backlog IS NOT NULL
