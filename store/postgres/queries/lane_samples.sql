-- One ready job of each of some lanes.
SELECT g.lane, j.route, j.namespace, j.kind, j.limits, j.requires::text AS requires
FROM unnest(%(lanes)s::bigint[]) AS g (lane)
CROSS JOIN LATERAL (
    SELECT * FROM tenure.job r WHERE r.lane = g.lane AND r.due AND r.state IN ('ready', 'restarting') LIMIT 1
) j
