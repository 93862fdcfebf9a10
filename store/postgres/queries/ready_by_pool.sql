-- Ready jobs of each pool and how long the oldest has been: one probe for each lane and priority, so many of a lane at most.
-- Counted as in overview.sql, in the same order and up to the same bound: what is changed here is changed there.
WITH RECURSIVE head (lane, priority, activate_at) AS (
    (SELECT lane, priority, activate_at FROM tenure.job WHERE due AND state IN ('ready', 'restarting')
     ORDER BY lane, priority DESC, activate_at LIMIT 1)
    UNION ALL
    SELECT n.lane, n.priority, n.activate_at FROM head h CROSS JOIN LATERAL (
        (SELECT j.lane, j.priority, j.activate_at FROM tenure.job j
         WHERE j.due AND j.state IN ('ready', 'restarting') AND j.lane = h.lane AND j.priority < h.priority
         ORDER BY j.priority DESC, j.activate_at LIMIT 1)
        UNION ALL
        (SELECT j.lane, j.priority, j.activate_at FROM tenure.job j
         WHERE j.due AND j.state IN ('ready', 'restarting') AND j.lane > h.lane
         ORDER BY j.lane, j.priority DESC, j.activate_at LIMIT 1)
        LIMIT 1
    ) n
), lanes AS MATERIALIZED (
    SELECT lane, min(activate_at) AS oldest FROM (SELECT * FROM head LIMIT %(heads)s) h GROUP BY lane
)
SELECT coalesce(l.pool, '') AS pool, sum(c.jobs)::bigint AS jobs,
       greatest(0, extract(epoch FROM now() - min(g.oldest)))::float8 AS oldest_s
FROM lanes g LEFT JOIN tenure.lane l ON l.id = g.lane CROSS JOIN LATERAL (
    SELECT count(*) AS jobs FROM (
        SELECT FROM tenure.job j WHERE j.lane = g.lane AND j.due AND j.state IN ('ready', 'restarting')
        ORDER BY j.priority DESC, j.activate_at LIMIT %(most)s / (SELECT count(*) FROM lanes)
    ) counted
) c
GROUP BY 1 ORDER BY 2 DESC, 1
