-- Members of workflows by state. One that was retried is stood for by its retry.
SELECT workflow_id, state, count(*) AS jobs, sum(progress)::float8 AS progress, min(started_at) AS started_at,
       max(finished_at) AS finished_at
FROM tenure.jobs WHERE workflow_id = ANY (%(ids)s) AND retried_by IS NULL
GROUP BY workflow_id, state
