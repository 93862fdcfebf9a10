-- ready or restarting -> executing: a new attempt under a new fence, for a claim that no one else's write can follow.
-- The place of each row is looked up by its primary key, one by one and in id order: a plan that joins is made for the table
-- as it once was, and reads all of it ever after (ADR 0014). BETWEEN has the planner expect few.
UPDATE tenure.job j
SET state = 'executing', attempt = j.attempt + 1,
    fence = (SELECT k.epoch::bigint << 47 FROM tenure.cluster k) | nextval('tenure.fence_sequence'),
    worker = %(worker)s, lease = c.lease, claim_revision = c.claim_revision, started_at = now(),
    slots = string_to_array(nullif(c.slots, ''), ','), progress = 0, progress_message = ''
FROM (
    SELECT claimed.*, found.place
    FROM unnest(%(ids)s::uuid[], %(attempts)s::int[], %(leases)s::bigint[], %(revisions)s::bigint[], %(slots)s::text[])
             AS claimed (id, attempt, lease, claim_revision, slots)
    CROSS JOIN LATERAL (SELECT f.ctid AS place FROM tenure.job f WHERE f.id = claimed.id LIMIT 1) found
    WHERE claimed.attempt BETWEEN 0 AND 2147483647 ORDER BY claimed.id
) c
WHERE j.ctid = c.place AND j.id = c.id AND j.state IN ('ready', 'restarting') AND j.attempt = c.attempt
  AND (j.attempt > 0 OR j.start_by IS NULL OR j.start_by > now()) AND (j.deadline IS NULL OR j.deadline > now())
  -- On a timeline that the leader has not seen the sequence may have gone back: nothing starts before the epoch rises.
  AND (SELECT coalesce(k.postgres_timeline = tenure.timeline(), true) FROM tenure.cluster k)
  -- Nor in a database that came of a dump.
  AND (SELECT coalesce(k.postgres_identity = tenure.postgres_identity(), true) FROM tenure.cluster k)
RETURNING j.id::text, j.attempt, j.fence, j.namespace, j.kind, j.route, j.payload::text, j.checkpoint::text,
          least(j.timeout_s, extract(epoch FROM j.deadline - now()))::float8 AS timeout_s,
          j.labels, j.started_at, j.parent_id::text, j.parked_attempt
