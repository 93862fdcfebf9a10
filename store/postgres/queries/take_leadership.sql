-- Record the term of a new leader; an older one that wakes up finds its term gone. Returns the row if taken.
UPDATE tenure.cluster SET leader = %(leader)s, leader_term = %(term)s, etcd_cluster_id = %(etcd_cluster_id)s,
       etcd_revision = %(etcd_revision)s
WHERE leader_term < %(term)s OR etcd_cluster_id IS DISTINCT FROM %(etcd_cluster_id)s
RETURNING epoch
