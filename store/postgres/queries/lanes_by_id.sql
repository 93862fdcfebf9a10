-- What lanes stand for.
SELECT id, pool, namespace, kind FROM tenure.lane WHERE id = ANY (%(lanes)s)
