-- The lanes that have a ready job, with the priority of their first: one index probe a lane, whatever the backlog. One
-- without a pool has lost its row.
WITH RECURSIVE head (lane, priority) AS (
    (SELECT lane, priority FROM tenure.job WHERE due AND state IN ('ready', 'restarting')
     ORDER BY lane, priority DESC, activate_at, id LIMIT 1)
    UNION ALL
    SELECT n.lane, n.priority
    FROM head h
    CROSS JOIN LATERAL (
        SELECT j.lane, j.priority FROM tenure.job j
        WHERE j.due AND j.state IN ('ready', 'restarting') AND j.lane > h.lane
        ORDER BY j.lane, j.priority DESC, j.activate_at, j.id LIMIT 1
    ) n
)
SELECT h.lane AS id, -h.priority AS rank, l.pool, l.namespace, l.kind, l.limits, l.requires
FROM head h LEFT JOIN tenure.lane l ON l.id = h.lane
