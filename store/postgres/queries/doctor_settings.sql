-- The settings of these names that the server has.
SELECT name, setting FROM pg_settings WHERE name = ANY(%(names)s)
