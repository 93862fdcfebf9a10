-- A file that is whole in the object store, under the fence of its attempt; returns the attempt if it was accepted.
INSERT INTO tenure.artifact (job_id, attempt, name, size_bytes, sha256, content_type)
SELECT j.id, j.attempt, %(name)s, %(size_bytes)s, %(sha256)s, %(content_type)s
FROM tenure.job j WHERE j.id = %(id)s AND j.fence = %(fence)s AND j.state = 'executing'
ON CONFLICT (job_id, attempt, name) DO UPDATE
SET size_bytes = excluded.size_bytes, sha256 = excluded.sha256, content_type = excluded.content_type,
    created_at = now(), lost = NULL
RETURNING attempt
