-- Every pool, with what is ready (counted up to a bound) and executes in it and below.
SELECT p.path,
       (SELECT count(*) FROM (
            SELECT FROM tenure.lane l JOIN tenure.job j ON j.lane = l.id AND j.due AND j.state IN ('ready', 'restarting')
            WHERE l.pool = p.path OR starts_with(l.pool, p.path || '/') LIMIT %(most)s) r) AS ready,
       (SELECT count(*) FROM tenure.job j
        WHERE j.state = 'executing' AND (j.route = p.path OR starts_with(j.route, p.path || '/'))) AS executing
FROM tenure.pool p ORDER BY p.path
