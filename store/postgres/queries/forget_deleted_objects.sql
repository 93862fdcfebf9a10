-- What has been deleted from the object store for the last time. An upload that was begun when its job went goes with it.
WITH late AS (
    DELETE FROM tenure.upload WHERE job_id = ANY (%(ids)s::uuid[])
)
DELETE FROM tenure.object_to_delete WHERE id = ANY (%(ids)s::uuid[])
