-- After an unknown outcome of a start: the attempts that carry these very claims are mine.
SELECT j.id, j.attempt, j.fence, j.namespace, j.kind, j.route, j.payload::text, j.checkpoint::text,
       -- Past its deadline the worker ends it at once.
       least(j.timeout_s, CASE WHEN j.deadline IS NOT NULL THEN greatest(0.001, extract(epoch FROM j.deadline - now()))
                          END)::float8 AS timeout_s,
       j.labels, j.started_at, j.parent_id, j.parked_attempt
FROM tenure.job j
JOIN unnest(%(ids)s::uuid[], %(leases)s::bigint[], %(revisions)s::bigint[]) AS c (id, lease, claim_revision)
  ON j.id = c.id AND j.lease = c.lease AND j.claim_revision = c.claim_revision
WHERE j.state = 'executing' AND j.worker = %(worker)s
