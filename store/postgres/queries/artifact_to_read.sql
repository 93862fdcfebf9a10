-- A file of a job: of this attempt, or (0) of the last one that has saved it.
SELECT attempt, name, size_bytes, sha256, content_type, created_at
FROM tenure.artifact
WHERE job_id = %(id)s AND name = %(name)s AND (attempt = %(attempt)s OR %(attempt)s = 0) AND sha256 IS NOT NULL
ORDER BY attempt DESC LIMIT 1
