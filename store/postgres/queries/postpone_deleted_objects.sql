-- What has been deleted from the object store, and is again in an hour: something may have been on its way.
UPDATE tenure.object_to_delete SET due_at = since + interval '1 hour' WHERE id = ANY (%(ids)s::uuid[])
