-- What is needed to say why a job does not run: its lane, and Postgres' own time.
SELECT j.id, j.state, j.route, j.due, j.activate_at, j.waiting_on, now() AS now,
       l.id AS lane, l.pool, l.namespace, l.kind, l.limits, l.requires
FROM tenure.job j JOIN tenure.lane l ON l.id = j.lane WHERE j.id = %(id)s
