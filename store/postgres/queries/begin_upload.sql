-- The attempt that executes under this fence, how many files it has saved beside this one, and how many uploads it has
-- begun, with this one.
WITH own AS (
    SELECT j.id, j.namespace, j.attempt FROM tenure.job j
    WHERE j.id = %(id)s AND j.fence = %(fence)s AND j.state = 'executing'
), noted AS (
    INSERT INTO tenure.upload AS u (job_id, attempt, begun) SELECT id, attempt, 1 FROM own
    ON CONFLICT (job_id, attempt) DO UPDATE SET begun = u.begun + %(more)s
    RETURNING u.begun
)
SELECT own.namespace, own.attempt, noted.begun,
       (SELECT count(*) FROM tenure.artifact a WHERE a.job_id = own.id AND a.attempt = own.attempt
                                                 AND a.name <> %(name)s) AS others
FROM own, noted
