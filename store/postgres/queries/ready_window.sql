-- The first ready jobs of some lanes, as many as wanted of each, in the order in which a lane is served: Candidate's
-- fields. Those passed over come as one set that is hashed once; a parameter would be searched for each row. The arrays are
-- selected: of a parameter the planner sees how long it is, and would plan this anew, at twice its cost, for each call.
SELECT -r.priority AS rank, date_part('epoch', r.activate_at) AS activate_at_s, r.id::text AS id, g.lane,
       r.attempt, r.route, r.ttl_s
FROM unnest((SELECT %(lanes)s::bigint[]), (SELECT %(wanted)s::int[])) AS g (lane, wanted)
CROSS JOIN LATERAL (
    SELECT j.id, j.attempt, j.priority, j.activate_at, j.route, j.ttl_s
    FROM tenure.job j
    WHERE j.lane = g.lane AND j.due AND j.state IN ('ready', 'restarting')
      AND j.id NOT IN (SELECT unnest((SELECT %(passed)s::uuid[])))
    ORDER BY j.priority DESC, j.activate_at, j.id
    LIMIT g.wanted
) r
