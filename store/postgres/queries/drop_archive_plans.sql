-- Plans that nobody carries out any more: what was written for them goes.
WITH dropped AS (
    DELETE FROM tenure.archive_file WHERE state = 'planned' RETURNING id, namespace, key
)
INSERT INTO tenure.object_to_delete (id, namespace, archive_key) SELECT id, namespace, key FROM dropped RETURNING id
