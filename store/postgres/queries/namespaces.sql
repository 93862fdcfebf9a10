-- Namespaces for which anything was set.
SELECT name, weight, ageing_s FROM tenure.namespace ORDER BY name
