-- Results that could not be saved, under the fences of their attempts. Run before their end in the same transaction.
-- One that is told twice in a batch counts once.
INSERT INTO tenure.artifact (job_id, attempt, name, size_bytes, content_type, lost)
SELECT DISTINCT ON (j.id) j.id, j.attempt, '_result.json', r.size_bytes, 'application/json', r.reason
FROM unnest(%(ids)s::uuid[], %(fences)s::bigint[], %(sizes)s::bigint[], %(reasons)s::text[])
     AS r (id, fence, size_bytes, reason)
JOIN tenure.job j ON j.id = r.id AND j.fence = r.fence AND j.state = 'executing'
ORDER BY j.id
ON CONFLICT (job_id, attempt, name) DO UPDATE
SET size_bytes = excluded.size_bytes, sha256 = NULL, lost = excluded.lost, created_at = now()
