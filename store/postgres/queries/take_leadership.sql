-- Record the term of a new leader and what the stores look like. On another etcd cluster, a revision that went back,
-- another Postgres or timeline, the epoch rises, so that every new fence is higher than any given before. After etcd was
-- lost, or a dump was restored, nothing is claimed for the longest TTL in use, since workers may still trust what is gone;
-- what the rows of a dump say about who executes is of the past.
-- No row: a later term is recorded already.
WITH seen AS (
    SELECT %(etcd_cluster_id)s::text AS etcd_cluster_id, %(etcd_revision)s::bigint AS etcd_revision,
           (SELECT system_identifier::text FROM pg_control_system()) AS postgres_system_id,
           tenure.timeline() AS postgres_timeline, tenure.postgres_identity() AS postgres_identity
), compared AS (
    SELECT s.*,
           coalesce(c.etcd_cluster_id <> s.etcd_cluster_id OR c.etcd_revision > s.etcd_revision, false) AS etcd_lost,
           coalesce(c.postgres_system_id <> s.postgres_system_id, false)
               OR coalesce(c.postgres_identity <> s.postgres_identity, false) AS from_dump,
           coalesce(c.postgres_timeline <> s.postgres_timeline, false) AS is_new_timeline
    FROM seen s, tenure.cluster c
), judged AS (
    SELECT p.*, p.from_dump OR p.is_new_timeline AS postgres_restored FROM compared p
)
UPDATE tenure.cluster c
SET leader = %(leader)s, leader_term = %(term)s,
    etcd_cluster_id = j.etcd_cluster_id, etcd_revision = j.etcd_revision,
    postgres_system_id = j.postgres_system_id, postgres_timeline = j.postgres_timeline,
    postgres_identity = j.postgres_identity,
    -- By as many timelines as were left behind: restored twice from one backup, Postgres forgets that it was once.
    epoch = c.epoch + (j.etcd_lost OR j.postgres_restored)::integer
            * greatest(1, j.postgres_timeline - coalesce(c.postgres_timeline, j.postgres_timeline)),
    claims_frozen_until = CASE WHEN j.etcd_lost OR j.from_dump THEN now() + make_interval(secs => coalesce(
        (SELECT max(ttl_s) FROM tenure.job WHERE j.from_dump OR state IN ('executing', 'restarting')), 0))
        ELSE c.claims_frozen_until END
FROM judged j
WHERE c.leader_term < %(term)s OR j.etcd_lost OR c.etcd_cluster_id IS NULL
   OR (c.leader_term = %(term)s AND c.leader = %(leader)s)  -- the same once more, after an unknown outcome
RETURNING c.epoch, j.etcd_lost, j.postgres_restored,
          -- A dump that is restored again knows as little of its first life's fences: the sequence goes ahead as well.
          CASE WHEN j.etcd_lost OR j.postgres_restored THEN tenure.advance_fences() IS NULL END AS has_advanced,
          greatest(0, extract(epoch FROM coalesce(c.claims_frozen_until, now()) - now()))::float8 AS frozen_s
