-- The attempt that executes under this fence, and how many files it has saved.
SELECT j.namespace, j.attempt, (SELECT count(*) FROM tenure.artifact a WHERE a.job_id = j.id AND a.attempt = j.attempt
                                                                       AND a.name <> %(name)s) AS others
FROM tenure.job j WHERE j.id = %(id)s AND j.fence = %(fence)s AND j.state = 'executing'
