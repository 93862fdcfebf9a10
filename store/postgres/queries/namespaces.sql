-- Namespaces for which anything was set.
SELECT name, weight FROM tenure.namespace ORDER BY name
