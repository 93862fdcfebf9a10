-- Namespaces for which anything was set.
SELECT name, weight, ageing_s, backlog, CASE WHEN backlog IS NOT NULL THEN unfinished END AS unfinished,
       submit_rate, submit_burst
FROM tenure.namespace ORDER BY name
