-- Take starts from the buckets of limits with a rate, as many as are there of those wanted. Postgres' clock fills them.
WITH wanted AS (
    SELECT * FROM unnest(%(names)s::text[], %(wanted)s::int[], %(per_s)s::float8[], %(sizes)s::float8[])
             AS w (name, wanted, per_s, size)
), filled AS (
    SELECT w.name, w.wanted,
           least(w.size, coalesce(b.tokens + extract(epoch FROM greatest(now() - b.taken_at, interval '0')) * w.per_s,
                                  w.size)) AS tokens,
           greatest(now(), b.taken_at) AS at
    FROM wanted w LEFT JOIN tenure.bucket b USING (name)
), taken AS (
    SELECT name, tokens, least(wanted, floor(tokens))::int AS granted, at FROM filled
)
INSERT INTO tenure.bucket AS b (name, tokens, taken_at)
SELECT name, tokens - granted, at FROM taken ORDER BY name
ON CONFLICT (name) DO UPDATE SET tokens = excluded.tokens, taken_at = excluded.taken_at
RETURNING b.name, b.tokens, (SELECT t.granted FROM taken t WHERE t.name = b.name) AS granted
