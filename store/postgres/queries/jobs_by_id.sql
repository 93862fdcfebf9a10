-- Jobs, active or finished. A job seen twice while it moves to history counts as finished.
SELECT DISTINCT ON (id) * FROM tenure.jobs WHERE id = ANY ((SELECT %(ids)s::uuid[])::uuid[]) ORDER BY id, finished_at NULLS LAST
