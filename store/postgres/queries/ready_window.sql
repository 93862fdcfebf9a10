-- The first ready jobs of some lanes, in the order in which they are served.
SELECT g.lane, r.id, r.attempt, r.priority, r.activate_at, r.route, r.ttl_s
FROM unnest(%(lanes)s::bigint[]) AS g (lane)
CROSS JOIN LATERAL (
    SELECT j.id, j.attempt, j.priority, j.activate_at, j.route, j.ttl_s
    FROM tenure.job j
    WHERE j.lane = g.lane AND j.due AND j.state IN ('ready', 'restarting')
    ORDER BY j.priority DESC, j.activate_at, j.id
    LIMIT %(per_lane)s
) r
ORDER BY r.priority DESC, r.activate_at, r.id
LIMIT %(total)s
