-- What is remembered about the stores and the leader, and what Postgres is.
SELECT epoch, leader, leader_term, etcd_cluster_id, etcd_revision, current_setting('server_version') AS postgres_version
FROM tenure.cluster
