-- A file of the archive that is going to be written.
INSERT INTO tenure.archive_file (id, namespace, key, jobs, ids, first_id, last_id, made, finished_from, finished_until,
                                 policy_namespace, policy_kind, policy_state, storage_class)
VALUES (%(id)s, %(namespace)s, %(key)s, %(jobs)s, %(ids)s::uuid[], %(first_id)s, %(last_id)s,
        int8range(%(made_from)s::bigint, %(made_until)s::bigint, '[]'), %(finished_from)s, %(finished_until)s,
        %(policy_namespace)s, %(policy_kind)s, %(policy_state)s, %(storage_class)s)
