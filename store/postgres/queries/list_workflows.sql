-- Workflows newest first (ids are ordered by creation), after a key. Null filters let everything through.
SELECT id, namespace, name, created_at, jobs, canceled_at, cancel_reason FROM tenure.workflow
WHERE id < %(before)s
  AND (%(namespace)s::text IS NULL OR namespace = %(namespace)s)
  AND (%(namespaces)s::text[] IS NULL OR namespace = ANY (%(namespaces)s))
  AND (%(name)s::text IS NULL OR name = %(name)s)
ORDER BY id DESC LIMIT %(limit)s
