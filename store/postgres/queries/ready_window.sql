-- The first ready jobs of some lanes, as many as wanted of each, in the order in which a lane is served.
SELECT g.lane, r.id, r.attempt, r.priority, r.activate_at, r.route, r.ttl_s
FROM unnest(%(lanes)s::bigint[], %(wanted)s::int[]) AS g (lane, wanted)
CROSS JOIN LATERAL (
    SELECT j.id, j.attempt, j.priority, j.activate_at, j.route, j.ttl_s
    FROM tenure.job j
    WHERE j.lane = g.lane AND j.due AND j.state IN ('ready', 'restarting')
    ORDER BY j.priority DESC, j.activate_at, j.id
    LIMIT g.wanted
) r
