-- Hold parents of retried jobs in place while the dependencies on them are written, as lock_parents does; those that have
-- ended, too, whose results the retries will read.
WITH RECURSIVE chain (id) AS (
    SELECT d.parent_id FROM tenure.dependency d WHERE d.child_id = ANY (%(ids)s) AND d.parked_attempt IS NULL
    UNION
    SELECT h.retried_by FROM chain c JOIN tenure.history h ON h.id = c.id WHERE h.retried_by IS NOT NULL
)
SELECT (SELECT count(*) FROM (
           SELECT j.id FROM tenure.job j WHERE j.id = ANY (ARRAY(SELECT id FROM chain)) ORDER BY j.id FOR KEY SHARE OF j
       ) AS active) + (SELECT count(*) FROM (
           SELECT h.id FROM tenure.history h WHERE h.id = ANY (ARRAY(SELECT id FROM chain)) ORDER BY h.id FOR KEY SHARE OF h
       ) AS ended) AS held
