-- Remember how far etcd has come, so that going back is noticed; only the leader of this term.
UPDATE tenure.cluster SET etcd_revision = %(etcd_revision)s
WHERE leader_term = %(term)s AND leader = %(leader)s AND etcd_revision < %(etcd_revision)s
