-- The spans of time that have a partition of history each; nulls if there is none. And what time it is.
SELECT w.from_at, w.until_at, now() AS now
FROM (SELECT 1) AS one LEFT JOIN tenure.week w ON w.parent = 'history' ORDER BY w.from_at
