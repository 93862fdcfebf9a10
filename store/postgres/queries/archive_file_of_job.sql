-- Files in which an archived job may be: most often one.
SELECT id, namespace, key, size_bytes, archived_at FROM tenure.archive_file
WHERE state = 'done' AND made @> %(made_ms)s::bigint AND first_id <= %(job)s AND last_id >= %(job)s
  AND %(mark)s::integer = ANY (marks)
