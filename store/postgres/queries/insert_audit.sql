-- Who did what. The namespace, where it is not told, is that of the job or the workflow that it is about. Written once,
-- however often it is tried.
INSERT INTO tenure.audit (id, caller, role, action, namespace, target, outcome, detail)
SELECT %(id)s::uuid, %(caller)s::text, %(role)s::text, %(action)s::text,
       coalesce(%(namespace)s::text,
                (SELECT namespace FROM tenure.job WHERE id = %(about)s::uuid),
                (SELECT namespace FROM tenure.history WHERE id = %(about)s::uuid LIMIT 1),
                (SELECT namespace FROM tenure.workflow WHERE id = %(about)s::uuid)),
       %(target)s::text, %(outcome)s::text, %(detail)s::json
WHERE NOT EXISTS (SELECT FROM tenure.audit WHERE id = %(id)s::uuid AND at > now() - interval '1 h')
