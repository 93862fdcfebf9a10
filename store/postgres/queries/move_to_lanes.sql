-- Move jobs under deeper pools to those pools' lanes; one page of the table a call, so that a pass reads it once.
WITH page AS (
    SELECT id, lane, route FROM tenure.job WHERE id > %(last)s ORDER BY id LIMIT %(limit)s
), fits AS (
    SELECT DISTINCT ON (p.id) p.id, m.before, m.after
    FROM page p
    JOIN unnest(%(before)s::bigint[], %(after)s::bigint[], %(pools)s::text[]) AS m (before, after, pool)
      ON p.lane = m.before AND (p.route = m.pool OR starts_with(p.route, m.pool || '/'))
    ORDER BY p.id, length(m.pool) DESC
), locked AS (
    SELECT j.id, f.after FROM tenure.job j JOIN fits f ON f.id = j.id AND j.lane = f.before
    ORDER BY j.id FOR NO KEY UPDATE OF j SKIP LOCKED
), moved AS (
    UPDATE tenure.job j SET lane = l.after FROM locked l WHERE j.id = l.id RETURNING j.id
)
SELECT (SELECT count(*) FROM page) AS read, (SELECT count(*) FROM moved) AS moved,
       (SELECT id FROM page ORDER BY id DESC LIMIT 1) AS last
