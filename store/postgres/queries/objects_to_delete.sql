-- A page of what is to be deleted from the object store now, after an id.
SELECT id, namespace, archive_key, since <= now() - interval '1 hour' AS is_old
FROM tenure.object_to_delete WHERE id > %(after)s AND due_at <= now() ORDER BY id LIMIT %(limit)s
