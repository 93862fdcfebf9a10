-- Forget lanes that nobody has asked for in a day and that no job is in: one pass over the active jobs, none where there is
-- no such lane. A job that SQL writes into one at this moment is no worse off than after a failover: its lane is made again.
WITH old AS MATERIALIZED (
    SELECT id FROM tenure.lane WHERE used_at < now() - interval '1 day'
), taken AS MATERIALIZED (
    SELECT DISTINCT lane FROM tenure.job WHERE EXISTS (SELECT FROM old)
), picked AS (
    SELECT l.id FROM tenure.lane l
    WHERE l.id = ANY (ARRAY(SELECT id FROM old EXCEPT SELECT lane FROM taken LIMIT %(limit)s))
      AND l.used_at < now() - interval '1 day'
    FOR UPDATE SKIP LOCKED
), gone AS (
    DELETE FROM tenure.lane l USING picked p WHERE l.id = p.id RETURNING 1
)
SELECT count(*) AS gone FROM gone
