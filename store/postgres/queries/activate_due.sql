-- Let jobs into the ready index whose activation time has come; a bounded number a call.
WITH picked AS (
    SELECT id FROM tenure.job
    WHERE NOT due AND state IN ('ready', 'restarting') AND activate_at <= now()
    ORDER BY activate_at LIMIT %(limit)s FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE tenure.job j SET due = true WHERE j.id = ANY (ARRAY(SELECT id FROM picked)) RETURNING j.lane
