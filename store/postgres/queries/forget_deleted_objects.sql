-- What has been deleted from the object store.
DELETE FROM tenure.object_to_delete WHERE id = ANY (%(ids)s::uuid[])
