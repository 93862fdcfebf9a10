-- Who puts or deletes a policy, and what it was before: in the transaction that does so, and ahead of it.
INSERT INTO tenure.audit (id, caller, role, action, namespace, target, outcome, detail)
SELECT %(id)s::uuid, %(caller)s::text, %(role)s::text, %(action)s::text, %(namespace)s::text, %(target)s::text, 'ok',
       json_build_object('before', (
           SELECT json_build_object('keep_s', keep_s, 'archive', archive, 'archive_keep_s', archive_keep_s,
                                    'storage_class', storage_class) FROM tenure.retention_policy
           WHERE namespace = coalesce(%(namespace)s::text, '') AND kind = %(kind)s::text AND state = %(state)s::text FOR UPDATE
       ), 'after', %(after)s::json)
