-- Who pauses or resumes what, and what was there before: in the transaction that does so, ahead of it.
INSERT INTO tenure.audit (id, caller, role, action, namespace, target, outcome, detail)
SELECT %(id)s::uuid, %(caller)s::text, %(role)s::text, %(action)s::text, %(namespace)s::text, %(target)s::text, 'ok',
       json_build_object('before', (
           SELECT json_build_object('reason', reason, 'paused_at', paused_at)
           FROM tenure.pause WHERE subject = %(subject)s AND name = %(name)s FOR UPDATE
       ), 'after', %(after)s::json)
