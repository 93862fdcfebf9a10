-- Remember pools that workers serve; returns those that are new.
INSERT INTO tenure.pool (path) SELECT unnest(%(pools)s::text[]) ON CONFLICT DO NOTHING RETURNING path
