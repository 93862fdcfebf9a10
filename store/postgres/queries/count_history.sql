-- Count what ended within a span of time, if that is where the last count ended. Run after lock_retention: nothing is removed
-- meanwhile.
WITH moved AS (
    UPDATE tenure.history_counted SET until_at = %(until_at)s::timestamptz
    WHERE until_at IS NOT DISTINCT FROM %(counted)s::timestamptz RETURNING 1
), ended AS (
    SELECT (finished_at AT TIME ZONE 'UTC')::date AS day, namespace, kind, state, count(*) AS jobs
    FROM tenure.history
    WHERE finished_at >= %(from_at)s::timestamptz AND finished_at < %(until_at)s::timestamptz
    GROUP BY 1, 2, 3, 4
), written AS (
    INSERT INTO tenure.history_count AS c (day, namespace, kind, state, jobs)
    SELECT day, namespace, kind, state, jobs FROM ended WHERE EXISTS (SELECT FROM moved)
    ON CONFLICT (day, namespace, kind, state) DO UPDATE SET jobs = c.jobs + excluded.jobs
    RETURNING 1
)
SELECT (SELECT count(*) FROM moved) AS moved, (SELECT count(*) FROM written) AS written
