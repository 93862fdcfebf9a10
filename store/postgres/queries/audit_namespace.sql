-- Who sets what of a namespace, and what it was before: in the transaction that does so, ahead of it.
INSERT INTO tenure.audit (id, caller, role, action, namespace, target, outcome, detail)
SELECT %(id)s::uuid, %(caller)s::text, %(role)s::text, %(action)s::text, %(namespace)s::text, %(target)s::text, 'ok',
       json_build_object('before', (
           SELECT json_build_object('weight', weight, 'ageing_s', ageing_s, 'backlog', backlog,
                                    'submit_rate', submit_rate, 'submit_burst', submit_burst)
           FROM tenure.namespace WHERE name = %(target)s FOR UPDATE
       ), 'set', %(after)s::json)
