-- The attempt that executes under this fence, how many files it has saved beside this one and its result, and how many
-- uploads it has begun, with this one. What is refused since it is one too many is counted once.
WITH own AS (
    SELECT j.id, j.namespace, j.attempt FROM tenure.job j
    WHERE j.id = %(id)s AND j.fence = %(fence)s AND j.state = 'executing'
), noted AS (
    INSERT INTO tenure.upload AS u (job_id, attempt, begun) SELECT id, attempt, 1 FROM own
    ON CONFLICT (job_id, attempt) DO UPDATE SET begun = greatest(u.begun, least(u.begun + %(more)s, %(most)s))
    RETURNING u.begun
)
SELECT own.namespace, own.attempt, noted.begun,
       (SELECT count(*) FROM tenure.artifact a WHERE a.job_id = own.id AND a.attempt = own.attempt
                                                 AND a.name <> %(name)s AND a.name <> %(result)s) AS others
FROM own, noted
