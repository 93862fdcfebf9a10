-- Set what is given of a namespace's settings; 0 turns ageing off and lifts the bounds of backlog and submits.
INSERT INTO tenure.namespace (name, weight, ageing_s, backlog, submit_rate, submit_burst)
VALUES (%(name)s, coalesce(%(weight)s, 1), nullif(%(ageing_s)s::float8, 0), nullif(%(backlog)s::bigint, 0),
        nullif(%(submit_rate)s::float8, 0), nullif(%(submit_burst)s::bigint, 0))
ON CONFLICT (name) DO UPDATE
SET weight = coalesce(%(weight)s, tenure.namespace.weight),
    ageing_s = CASE WHEN %(ageing_s)s::float8 IS NULL THEN tenure.namespace.ageing_s ELSE excluded.ageing_s END,
    backlog = CASE WHEN %(backlog)s::bigint IS NULL THEN tenure.namespace.backlog ELSE excluded.backlog END,
    submit_rate = CASE WHEN %(submit_rate)s::float8 IS NULL THEN tenure.namespace.submit_rate
                       ELSE excluded.submit_rate END,
    submit_burst = CASE WHEN %(submit_burst)s::bigint IS NULL THEN tenure.namespace.submit_burst
                        ELSE excluded.submit_burst END,
    -- Counted only while there is a bound: a count from before says nothing.
    unfinished = CASE WHEN tenure.namespace.backlog IS NULL THEN NULL ELSE tenure.namespace.unfinished END,
    counted_at = CASE WHEN tenure.namespace.backlog IS NULL THEN NULL ELSE tenure.namespace.counted_at END,
    updated_at = now()
RETURNING name, weight, ageing_s, backlog, CASE WHEN backlog IS NOT NULL THEN unfinished END AS unfinished,
          submit_rate, submit_burst
