-- Jobs that nobody executes and whose time is up: not started at all in time, or not ended. No lock: expire_idle judges.
(SELECT id FROM tenure.job WHERE start_by <= now() AND attempt = 0 ORDER BY start_by LIMIT %(limit)s)
UNION
(SELECT id FROM tenure.job WHERE deadline <= now() AND state <> 'executing' ORDER BY deadline LIMIT %(limit)s)
