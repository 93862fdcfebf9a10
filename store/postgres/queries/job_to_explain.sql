-- What is needed to say why a job does not run: its lane, and Postgres' own time.
SELECT j.id, j.state, j.route, j.due, j.activate_at, j.waiting_on, now() AS now,
       j.lane, j.namespace, j.kind,
       -- A lane that Postgres lost in a failover is made again by the leader.
       coalesce(l.pool, split_part(j.route, '/', 1)) AS pool,
       coalesce(l.limits, array_to_string(j.limits, ','), '') AS limits,
       coalesce(l.requires, j.requires::text, '') AS requires,
       tenure.trigger_of(j) AS trigger, j.parked_attempt IS NOT NULL AS parked,
       j.held_back, CASE WHEN j.held_back IS NOT NULL THEN
           (SELECT r.id FROM tenure.job r
            WHERE (r.namespace, r.kind, r.unique_key) = (j.namespace, j.kind, j.unique_key) AND r.replaced_by IS NOT NULL
            LIMIT 1) END AS behind,
       ARRAY(SELECT d.parent_id FROM tenure.dependency d
             WHERE d.child_id = j.id AND d.parked_attempt IS NOT DISTINCT FROM j.parked_attempt AND d.parent_state IS NULL
             ORDER BY d.parent_id LIMIT 3) AS waits_for
FROM tenure.job j LEFT JOIN tenure.lane l ON l.id = j.lane WHERE j.id = %(id)s
