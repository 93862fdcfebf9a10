-- How long history is kept, by namespace, kind and state; an empty name is any.
SELECT namespace, kind, state, keep_s, archive, archive_keep_s, storage_class
FROM tenure.retention_policy ORDER BY namespace, kind, state
