-- A window of what may be retried, in id order, and which of it match: bounded, however little a filter leaves over.
WITH letter AS (
    SELECT id, namespace, kind, route, state, labels, parent_id, workflow_id, created_at, limits, requires
    FROM tenure.history
    WHERE id > %(after)s AND id < %(until)s AND state IN ('failed', 'canceled') AND retried_by IS NULL AND deleted_at IS NULL
    ORDER BY id LIMIT %(limit)s
)
SELECT id, namespace, kind, route, limits, requires,
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
FROM letter ORDER BY id
