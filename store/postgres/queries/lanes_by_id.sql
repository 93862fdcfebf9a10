-- What lanes stand for.
SELECT id, pool, namespace, kind, limits, requires FROM tenure.lane WHERE id = ANY (%(lanes)s)
