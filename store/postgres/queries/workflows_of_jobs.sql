-- Which workflows jobs are members of.
SELECT id, workflow_id FROM tenure.jobs WHERE id = ANY (%(ids)s)
