-- What is paused, with the jobs of each that execute.
SELECT p.subject, p.name, p.reason, p.paused_at,
       (SELECT count(*) FROM tenure.job j
        WHERE j.state = 'executing'
          AND CASE p.subject WHEN 'kind' THEN j.kind = p.name
                             WHEN 'namespace' THEN j.namespace = p.name
                             ELSE j.route = p.name OR starts_with(j.route, p.name || '/') END) AS executing
FROM tenure.pause p ORDER BY p.subject, p.name
