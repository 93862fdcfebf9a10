-- What attempts of jobs have saved, and results that could not be.
SELECT job_id, attempt, name, size_bytes, sha256, content_type, lost, created_at
FROM tenure.artifact WHERE job_id = ANY (%(ids)s::uuid[]) ORDER BY job_id, attempt, name
