-- Hold in place the replaced jobs that still have the unique keys of new jobs: their end waits for the insertion, and then
-- sees who is held behind them. In the order of ids, as ends lock them; the trigger of the insertion meets them in any.
SELECT count(*) FROM (
    SELECT j.id FROM tenure.job j
    JOIN unnest(%(namespaces)s::text[], %(kinds)s::text[], %(keys)s::text[]) AS g (namespace, kind, unique_key)
      USING (namespace, kind, unique_key)
    WHERE j.replaced_by IS NOT NULL ORDER BY j.id FOR KEY SHARE OF j
) AS held
