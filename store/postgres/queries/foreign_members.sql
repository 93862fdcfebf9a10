-- Whether a workflow has members outside of these namespaces.
SELECT 1 FROM tenure.jobs WHERE workflow_id = %(workflow_id)s AND namespace <> ALL (%(namespaces)s::text[]) LIMIT 1
