-- The bounds of namespaces: backlogs, what was counted last and how long ago, and rates of submits.
SELECT name, backlog, coalesce(unfinished, 0) AS unfinished,
       coalesce(extract(epoch FROM now() - counted_at), 1e9)::float8 AS age_s,
       submit_rate, submit_burst
FROM tenure.namespace WHERE backlog IS NOT NULL OR submit_rate IS NOT NULL
