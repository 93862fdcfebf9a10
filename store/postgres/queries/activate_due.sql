-- Let jobs into the ready index whose activation time has come; a bounded number a call.
WITH picked AS (
    SELECT id FROM tenure.job
    WHERE NOT due AND state IN ('ready', 'restarting') AND activate_at <= now()
    ORDER BY activate_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
)
UPDATE tenure.job j SET due = true FROM picked p WHERE j.id = p.id RETURNING j.lane
