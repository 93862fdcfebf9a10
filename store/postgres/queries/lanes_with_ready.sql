-- The lanes that have a ready job: one index probe a lane, whatever the backlog. One without a pool has lost its row.
WITH RECURSIVE head (lane) AS (
    (SELECT lane FROM tenure.job WHERE due AND state IN ('ready', 'restarting') ORDER BY lane LIMIT 1)
    UNION ALL
    SELECT (SELECT j.lane FROM tenure.job j
            WHERE j.due AND j.state IN ('ready', 'restarting') AND j.lane > h.lane ORDER BY j.lane LIMIT 1)
    FROM head h WHERE h.lane IS NOT NULL
)
SELECT h.lane AS id, l.pool, l.namespace, l.kind, l.limits, l.requires
FROM head h LEFT JOIN tenure.lane l ON l.id = h.lane WHERE h.lane IS NOT NULL
