-- ready or restarting -> executing: a new attempt under a new fence, for a claim that no one else's write can follow.
WITH claimed AS (
    SELECT * FROM unnest(%(ids)s::uuid[], %(attempts)s::int[], %(leases)s::bigint[], %(revisions)s::bigint[],
                         %(slots)s::text[])
             AS c (id, attempt, lease, claim_revision, slots)
), locked AS (
    SELECT j.id, c.lease, c.claim_revision, c.slots
    FROM tenure.job j JOIN claimed c ON j.id = c.id
    WHERE j.state IN ('ready', 'restarting') AND j.attempt = c.attempt
      AND (j.attempt > 0 OR j.start_by IS NULL OR j.start_by > now()) AND (j.deadline IS NULL OR j.deadline > now())
    ORDER BY j.id FOR NO KEY UPDATE OF j
)
UPDATE tenure.job j
SET state = 'executing', attempt = j.attempt + 1,
    fence = (k.epoch::bigint << 47) | nextval('tenure.fence_sequence'),
    worker = %(worker)s, lease = l.lease, claim_revision = l.claim_revision, started_at = now(),
    slots = string_to_array(nullif(l.slots, ''), ','), progress = 0, progress_message = ''
FROM locked l, tenure.cluster k
WHERE j.id = l.id
  -- On a timeline that the leader has not seen the sequence may have gone back: nothing starts before the epoch rises.
  AND coalesce(k.postgres_timeline = (SELECT tenure.timeline()), true)
RETURNING j.id, j.attempt, j.fence, j.namespace, j.kind, j.route, j.payload::text, j.checkpoint::text,
          least(j.timeout_s, extract(epoch FROM j.deadline - now()))::float8 AS timeout_s,
          j.labels, j.started_at, j.parent_id, j.parked_attempt
