-- Count the unfinished jobs of the namespaces that have a bound: one pass over the active jobs, none where nobody has one.
WITH bounded AS MATERIALIZED (
    SELECT name FROM tenure.namespace WHERE backlog IS NOT NULL
), counted AS (
    SELECT j.namespace, count(*) AS jobs FROM tenure.job j
    WHERE EXISTS (SELECT FROM bounded) AND j.namespace = ANY (ARRAY(SELECT name FROM bounded))
    GROUP BY j.namespace
)
UPDATE tenure.namespace n SET unfinished = coalesce(c.jobs, 0), counted_at = now()
FROM bounded b LEFT JOIN counted c ON c.namespace = b.name WHERE n.name = b.name
