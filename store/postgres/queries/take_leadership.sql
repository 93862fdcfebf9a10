-- Record the term of a new leader and what the stores look like. On another etcd cluster, a revision that went back,
-- another Postgres or timeline, the epoch rises, so that every new fence is higher than any given before; and after
-- etcd was lost nothing is claimed for the longest TTL in use, since workers may still trust what is gone.
-- No row: a later term is recorded already.
WITH seen AS (
    SELECT %(etcd_cluster_id)s::text AS etcd_cluster_id, %(etcd_revision)s::bigint AS etcd_revision,
           (SELECT system_identifier::text FROM pg_control_system()) AS postgres_system_id,
           tenure.timeline() AS postgres_timeline
), judged AS (
    SELECT s.*,
           coalesce(c.etcd_cluster_id <> s.etcd_cluster_id OR c.etcd_revision > s.etcd_revision, false) AS etcd_lost,
           coalesce(c.postgres_system_id <> s.postgres_system_id OR c.postgres_timeline <> s.postgres_timeline, false)
               AS postgres_restored
    FROM seen s, tenure.cluster c
)
UPDATE tenure.cluster c
SET leader = %(leader)s, leader_term = %(term)s,
    etcd_cluster_id = j.etcd_cluster_id, etcd_revision = j.etcd_revision,
    postgres_system_id = j.postgres_system_id, postgres_timeline = j.postgres_timeline,
    -- By as many timelines as were left behind: restored twice from one backup, Postgres forgets that it was once.
    epoch = c.epoch + (j.etcd_lost OR j.postgres_restored)::integer
            * greatest(1, j.postgres_timeline - coalesce(c.postgres_timeline, j.postgres_timeline)),
    claims_frozen_until = CASE WHEN j.etcd_lost THEN now() + make_interval(secs => coalesce(
        (SELECT max(ttl_s) FROM tenure.job WHERE state IN ('executing', 'restarting')), 0)) ELSE c.claims_frozen_until END
FROM judged j
WHERE c.leader_term < %(term)s OR j.etcd_lost OR c.etcd_cluster_id IS NULL
   OR (c.leader_term = %(term)s AND c.leader = %(leader)s)  -- the same once more, after an unknown outcome
RETURNING c.epoch, j.etcd_lost, j.postgres_restored,
          greatest(0, extract(epoch FROM coalesce(c.claims_frozen_until, now()) - now()))::float8 AS frozen_s
