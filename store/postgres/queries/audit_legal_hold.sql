-- Who sets or lifts a hold, and what it was before: in the transaction that does so, and ahead of it.
INSERT INTO tenure.audit (id, caller, role, action, namespace, target, outcome, detail)
SELECT %(id)s::uuid, %(caller)s::text, %(role)s::text, %(action)s::text, %(namespace)s::text, %(target)s::text, 'ok',
       json_build_object('before', (
           SELECT json_build_object('reason', reason, 'set_by', set_by, 'set_at', set_at) FROM tenure.legal_hold
           WHERE key = %(key)s::text AND value = %(value)s::text FOR UPDATE
       ), 'after', %(after)s::json)
