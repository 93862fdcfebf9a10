-- How many jobs have ended, in groups; null where it is not asked for. Null filters let everything through.
SELECT CASE WHEN %(by_day)s THEN day END AS day, CASE WHEN %(by_namespace)s THEN namespace END AS namespace,
       CASE WHEN %(by_kind)s THEN kind END AS kind, CASE WHEN %(by_state)s THEN state END AS state,
       sum(jobs)::bigint AS jobs
FROM tenure.history_count
WHERE day >= coalesce(%(from_day)s::date, '-infinity') AND day < coalesce(%(until_day)s::date, 'infinity')
  AND (%(namespace)s::text IS NULL OR namespace = %(namespace)s)
  AND (%(namespaces)s::text[] IS NULL OR namespace = ANY (%(namespaces)s))
  AND (%(kind)s::text IS NULL OR kind = %(kind)s)
  AND (%(states)s::text[] IS NULL OR state = ANY (%(states)s))
  AND jobs > 0
GROUP BY 1, 2, 3, 4 ORDER BY 1 NULLS FIRST, 2, 3, 4 LIMIT %(limit)s
