-- Remember how far etcd has come, so that going back is noticed; only the leader of this term.
-- Returns whether Postgres is still the one, on the timeline, with which the term began, and no dump was restored.
WITH remembered AS (
    UPDATE tenure.cluster SET etcd_revision = %(etcd_revision)s
    WHERE leader_term = %(term)s AND leader = %(leader)s AND etcd_revision < %(etcd_revision)s
)
SELECT postgres_timeline = tenure.timeline()
       AND postgres_system_id = (SELECT system_identifier::text FROM pg_control_system())
       AND postgres_identity = tenure.postgres_identity() AS is_same_postgres
FROM tenure.cluster
