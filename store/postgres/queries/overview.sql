-- What waits and executes, by lane, each counted up to a bound; as rows without a lane, what waits for jobs or for its time.
-- Each scan is in the order of the index that is meant for it: else the planner takes a LIMIT for a reason to scan the table.
-- The oldest ready job of a lane is the first of one of its priorities: an index probe for each, whatever the backlog.
-- Ready jobs are counted as in ready_by_pool.sql, in the same order and up to the same bound: an overview and the metrics of
-- the leader say the same of a long backlog. Half of the bound is divided among the lanes; what they leave of it is divided
-- among those that have more. Capped: a lane may have more than was counted.
WITH RECURSIVE head (lane, priority, activate_at) AS (
    (SELECT lane, priority, activate_at FROM tenure.job WHERE due AND state IN ('ready', 'restarting')
     ORDER BY lane, priority DESC, activate_at LIMIT 1)
    UNION ALL
    SELECT next.lane, next.priority, next.activate_at
    FROM head h CROSS JOIN LATERAL (
        (SELECT j.lane, j.priority, j.activate_at FROM tenure.job j
         WHERE j.due AND j.state IN ('ready', 'restarting') AND j.lane = h.lane AND j.priority < h.priority
         ORDER BY j.priority DESC, j.activate_at LIMIT 1)
        UNION ALL
        (SELECT j.lane, j.priority, j.activate_at FROM tenure.job j
         WHERE j.due AND j.state IN ('ready', 'restarting') AND j.lane > h.lane
         ORDER BY j.lane, j.priority DESC, j.activate_at LIMIT 1)
        LIMIT 1
    ) next
), heads AS MATERIALIZED (
    SELECT lane, priority, activate_at FROM head LIMIT %(heads)s
), oldest AS (
    SELECT lane, min(activate_at) AS oldest_at FROM heads GROUP BY lane
), share AS (
    SELECT %(ready)s / (2 * greatest(1, count(*))) AS jobs FROM oldest
), few AS MATERIALIZED (
    SELECT o.lane, o.oldest_at, c.jobs
    FROM oldest o CROSS JOIN LATERAL (
        SELECT count(*) AS jobs FROM (
            SELECT FROM tenure.job j WHERE j.lane = o.lane AND j.due AND j.state IN ('ready', 'restarting')
            ORDER BY j.priority DESC, j.activate_at LIMIT (SELECT jobs FROM share)
        ) counted
    ) c
), most AS (
    SELECT max(jobs) + (%(ready)s - (SELECT coalesce(sum(jobs), 0) FROM few)) / greatest(1, count(*)) AS jobs
    FROM few WHERE jobs >= (SELECT jobs FROM share)
), executing AS MATERIALIZED (
    SELECT lane FROM tenure.job WHERE state = 'executing' ORDER BY id LIMIT %(executing)s
)
SELECT 'ready' AS what, lane, jobs, oldest_at, false AS capped FROM few WHERE jobs < (SELECT jobs FROM share)
UNION ALL
SELECT 'ready', f.lane, c.jobs, f.oldest_at, c.jobs >= (SELECT jobs::bigint FROM most)
FROM few f CROSS JOIN LATERAL (
    SELECT count(*) AS jobs FROM (
        SELECT FROM tenure.job j WHERE j.lane = f.lane AND j.due AND j.state IN ('ready', 'restarting')
        ORDER BY j.priority DESC, j.activate_at LIMIT (SELECT jobs::bigint FROM most)
    ) counted
) c
WHERE f.jobs >= (SELECT jobs FROM share)
UNION ALL
SELECT 'executing', lane, count(*), NULL, false FROM executing GROUP BY lane
UNION ALL
SELECT 'waiting', NULL, count(*), NULL, false FROM (SELECT FROM tenure.job WHERE state = 'waiting' ORDER BY id LIMIT %(others)s) w
UNION ALL
SELECT 'delayed', NULL, count(*), NULL, false
FROM (SELECT FROM tenure.job WHERE NOT due AND state IN ('ready', 'restarting') ORDER BY activate_at LIMIT %(others)s) d
