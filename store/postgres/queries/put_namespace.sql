-- Set what is given of a namespace's settings; 0 turns ageing off.
INSERT INTO tenure.namespace (name, weight, ageing_s)
VALUES (%(name)s, coalesce(%(weight)s, 1), nullif(%(ageing_s)s::float8, 0))
ON CONFLICT (name) DO UPDATE
SET weight = coalesce(%(weight)s, tenure.namespace.weight),
    ageing_s = CASE WHEN %(ageing_s)s::float8 IS NULL THEN tenure.namespace.ageing_s ELSE excluded.ageing_s END,
    updated_at = now()
RETURNING name, weight, ageing_s
