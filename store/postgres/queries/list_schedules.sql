-- Schedules by namespace and name, after a key. A null namespace lets every one through.
SELECT *, now() AS now FROM tenure.schedule
WHERE (namespace, name) > (%(after_namespace)s::text, %(after_name)s::text)
  AND (%(namespace)s::text IS NULL OR namespace = %(namespace)s)
  AND (%(namespaces)s::text[] IS NULL OR namespace = ANY (%(namespaces)s))
ORDER BY namespace, name LIMIT %(limit)s
