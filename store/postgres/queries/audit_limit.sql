-- Who puts or deletes a limit, and what it was before: in the transaction that does so, and ahead of it.
INSERT INTO tenure.audit (id, caller, role, action, namespace, target, outcome, detail)
SELECT %(id)s::uuid, %(caller)s::text, %(role)s::text, %(action)s::text, %(namespace)s::text, %(target)s::text, 'ok',
       json_build_object('before', (
           SELECT json_build_object('concurrent', concurrent, 'rate', rate, 'interval_s', interval_s, 'burst', burst)
           FROM tenure.job_limit WHERE name = %(target)s FOR UPDATE
       ), 'after', %(after)s::json)
