-- Which of these attempts have ended already, and how: a repeated report is answered from here.
SELECT a.job_id::text AS id, a.fence, a.outcome, a.worker, a.lease, a.claim_revision, a.attempt, a.slots, j.state, coalesce(j.lane, 0) AS lane
FROM unnest(%(ids)s::uuid[], %(fences)s::bigint[]) AS g (id, fence)
JOIN tenure.attempt a ON a.job_id = g.id AND a.fence = g.fence
LEFT JOIN LATERAL (
    SELECT state, lane FROM tenure.job WHERE id = g.id
    UNION ALL
    SELECT state, NULL FROM tenure.history WHERE id = g.id LIMIT 1
) j ON true
