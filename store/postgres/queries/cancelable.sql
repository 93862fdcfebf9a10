-- A window of jobs that have not ended, in id order, and which of them match: bounded, however little a filter leaves over.
WITH read AS (
    SELECT id, namespace, kind, route, state, labels, parent_id, workflow_id, created_at FROM tenure.job
    WHERE id > %(after)s AND id < %(until)s ORDER BY id LIMIT %(limit)s
)
SELECT id, state,
       (%(namespace)s::text IS NULL OR namespace = %(namespace)s)
       AND (%(namespaces)s::text[] IS NULL OR namespace = ANY (%(namespaces)s))
       AND (%(kind)s::text IS NULL OR kind = %(kind)s)
       AND (%(route)s::text IS NULL OR route = %(route)s OR starts_with(route, %(route)s || '/'))
       AND state = ANY (%(states)s::text[])
       AND (%(labels)s::jsonb IS NULL OR coalesce(labels @> %(labels)s, false))
       AND (%(parent_id)s::uuid IS NULL OR coalesce(parent_id = %(parent_id)s, false))
       AND (%(workflow_id)s::uuid IS NULL OR coalesce(workflow_id = %(workflow_id)s, false))
       AND (%(created_after)s::timestamptz IS NULL OR created_at >= %(created_after)s)
       AND (%(created_before)s::timestamptz IS NULL OR created_at < %(created_before)s) AS matches
FROM read ORDER BY id
