-- After an unknown outcome of a start: the attempts that carry these very claims are mine.
SELECT j.id::text, j.attempt, j.fence, j.namespace, j.kind, j.route, j.payload::text, j.checkpoint::text,
       -- What is left of it: the leader counts from started_at. Once it is over the worker ends the attempt at once.
       CASE WHEN num_nonnulls(j.timeout_s, j.deadline) > 0
            THEN greatest(0.001, least(j.timeout_s - extract(epoch FROM now() - j.started_at),
                                       extract(epoch FROM j.deadline - now()))) END::float8 AS timeout_s,
       j.labels, j.started_at, j.parent_id::text, j.parked_attempt
FROM tenure.job j
JOIN unnest(%(ids)s::uuid[], %(leases)s::bigint[], %(revisions)s::bigint[]) AS c (id, lease, claim_revision)
  ON j.id = c.id AND j.lease = c.lease AND j.claim_revision = c.claim_revision
WHERE j.state = 'executing' AND j.worker = %(worker)s
