-- The settings of all kinds.
SELECT namespace, name, settings::text AS settings FROM tenure.kind ORDER BY namespace, name
