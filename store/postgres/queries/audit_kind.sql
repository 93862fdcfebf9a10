-- Who sets or deletes what is set for a kind, and what it was before: in the transaction that does so, ahead of it.
INSERT INTO tenure.audit (id, caller, role, action, namespace, target, outcome, detail)
SELECT %(id)s::uuid, %(caller)s::text, %(role)s::text, %(action)s::text, %(namespace)s::text, %(target)s::text, 'ok',
       json_build_object('before', (
           SELECT settings FROM tenure.kind WHERE namespace = coalesce(%(namespace)s::text, '') AND name = %(target)s FOR UPDATE
       ), 'after', %(after)s::json)
