-- Of some jobs, those whose rows somebody else has locked at this moment.
WITH free AS (
    SELECT id FROM tenure.job WHERE id = ANY (%(ids)s) FOR UPDATE SKIP LOCKED
)
SELECT id FROM tenure.job WHERE id = ANY (%(ids)s) EXCEPT SELECT id FROM free
