-- What became of results that are not kept with their jobs, by job and attempt.
SELECT a.job_id, a.size_bytes, a.sha256, a.lost
FROM unnest(%(ids)s::uuid[], %(attempts)s::int[]) AS r (id, attempt)
JOIN tenure.artifact a ON a.job_id = r.id AND a.attempt = r.attempt AND a.name = '_result.json'
