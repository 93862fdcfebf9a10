-- Hold parents in place while dependencies on them are written: their finish waits, and then sees the dependency.
SELECT count(*) FROM (SELECT id FROM tenure.job WHERE id = ANY (%(ids)s) ORDER BY id FOR KEY SHARE) AS held
