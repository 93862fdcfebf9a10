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
), share AS (
    SELECT %(most)s / (2 * greatest(1, count(*))) AS jobs FROM lanes
), few AS MATERIALIZED (
    SELECT g.lane, g.oldest, c.jobs
    FROM lanes g CROSS JOIN LATERAL (
        SELECT count(*) AS jobs FROM (
            SELECT FROM tenure.job j WHERE j.lane = g.lane AND j.due AND j.state IN ('ready', 'restarting')
            ORDER BY j.priority DESC, j.activate_at LIMIT (SELECT jobs FROM share)
        ) counted
    ) c
), most AS (
    SELECT max(jobs) + (%(most)s - (SELECT coalesce(sum(jobs), 0) FROM few)) / greatest(1, count(*)) AS jobs
    FROM few WHERE jobs >= (SELECT jobs FROM share)
), counted AS (
    SELECT lane, oldest, jobs FROM few WHERE jobs < (SELECT jobs FROM share)
    UNION ALL
    SELECT f.lane, f.oldest, c.jobs
    FROM few f CROSS JOIN LATERAL (
        SELECT count(*) AS jobs FROM (
            SELECT FROM tenure.job j WHERE j.lane = f.lane AND j.due AND j.state IN ('ready', 'restarting')
            ORDER BY j.priority DESC, j.activate_at LIMIT (SELECT jobs::bigint FROM most)
        ) counted
    ) c
    WHERE f.jobs >= (SELECT jobs FROM share)
)
SELECT coalesce(l.pool, '') AS pool, sum(c.jobs)::bigint AS jobs,
       greatest(0, extract(epoch FROM now() - min(c.oldest)))::float8 AS oldest_s
FROM counted c LEFT JOIN tenure.lane l ON l.id = c.lane
GROUP BY 1 ORDER BY 2 DESC, 1
