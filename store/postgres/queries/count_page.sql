-- How many jobs of a window of history, in id order, within a span of ends and after a key, ended on which day; as the last
-- row, where the window ended and how much was looked at.
WITH looked_at AS MATERIALIZED (
    SELECT id, (finished_at AT TIME ZONE 'UTC')::date AS day, namespace, kind, state,
           finished_at < %(counted_until)s::timestamptz AS counts
    FROM tenure.history
    WHERE finished_at >= %(from_at)s::timestamptz AND finished_at < %(until_at)s::timestamptz AND id > %(after)s
    ORDER BY id LIMIT %(window)s
)
SELECT day, namespace, kind, state, count(*) AS jobs, NULL::uuid AS last
FROM looked_at WHERE counts GROUP BY day, namespace, kind, state
UNION ALL
SELECT NULL, NULL, NULL, NULL, (SELECT count(*) FROM looked_at), (SELECT id FROM looked_at ORDER BY id DESC LIMIT 1)
ORDER BY day NULLS LAST
