-- A log lies in the object store from now on, and not here any more; nothing where it has grown since it was read, or where
-- somebody else has moved it.
WITH moved AS (
    UPDATE tenure.log_head SET moved_at = now(), object_bytes = %(object_bytes)s
    WHERE job_id = %(job_id)s AND attempt = %(attempt)s AND last_seq = %(last_seq)s AND moved_at IS NULL
    RETURNING job_id
), gone AS (
    DELETE FROM tenure.log
    WHERE job_id = %(job_id)s AND attempt = %(attempt)s AND EXISTS (SELECT FROM moved)
)
SELECT job_id FROM moved
