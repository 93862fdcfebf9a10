-- Put what was counted of a span in the place of what was there, if nobody else has counted since it began.
WITH moved AS (
    UPDATE tenure.history_counted SET until_at = %(counted_until)s::timestamptz
    WHERE until_at IS NOT DISTINCT FROM %(before)s::timestamptz RETURNING 1
), counted AS (
    SELECT * FROM unnest(%(days)s::date[], %(namespaces)s::text[], %(kinds)s::text[], %(states)s::text[], %(jobs)s::bigint[])
                  AS c (day, namespace, kind, state, jobs)
    WHERE EXISTS (SELECT FROM moved)
), gone AS (
    DELETE FROM tenure.history_count h
    WHERE h.day >= (%(from_at)s::timestamptz AT TIME ZONE 'UTC')::date
      AND h.day <= ((%(counted_until)s::timestamptz - interval '1 us') AT TIME ZONE 'UTC')::date
      AND EXISTS (SELECT FROM moved)
      AND NOT EXISTS (SELECT FROM counted c
                      WHERE (c.day, c.namespace, c.kind, c.state) = (h.day, h.namespace, h.kind, h.state))
), written AS (
    INSERT INTO tenure.history_count (day, namespace, kind, state, jobs) SELECT * FROM counted
    ON CONFLICT (day, namespace, kind, state) DO UPDATE SET jobs = excluded.jobs
)
SELECT count(*) AS moved FROM moved
