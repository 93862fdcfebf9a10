-- The files that attempts of a job have saved.
SELECT attempt, name, size_bytes, sha256, content_type, created_at
FROM tenure.artifact WHERE job_id = %(id)s AND sha256 IS NOT NULL ORDER BY attempt, name
