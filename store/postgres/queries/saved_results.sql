-- Which results of executing attempts are in the object store.
SELECT j.id::text AS id, j.fence, a.size_bytes, a.sha256
FROM unnest(%(ids)s::uuid[], %(fences)s::bigint[]) AS r (id, fence)
JOIN tenure.job j ON j.id = r.id AND j.fence = r.fence AND j.state = 'executing'
JOIN tenure.artifact a ON a.job_id = j.id AND a.attempt = j.attempt AND a.name = '_result.json' AND a.sha256 IS NOT NULL
