-- Schedules with a tick to decide upon, or whose queued tick can fire, and which of their recent jobs have not ended.
SELECT s.id, s.namespace, s.name, s.spec, s.next_at, s.queued_tick, s.turn, now() AS now,
       ARRAY(SELECT j.id FROM tenure.job j WHERE j.id = ANY (s.recent_jobs) ORDER BY j.id) AS unfinished
FROM tenure.schedule s
WHERE s.id IN (
    (SELECT d.id FROM tenure.schedule d WHERE NOT d.paused AND d.next_at <= now() AND d.id <> ALL (%(broken)s::uuid[])
     ORDER BY d.next_at LIMIT %(limit)s)
    UNION ALL
    (SELECT q.id FROM tenure.schedule q
     WHERE NOT q.paused AND q.queued_tick IS NOT NULL AND q.id <> ALL (%(broken)s::uuid[])
       AND NOT EXISTS (SELECT FROM tenure.job j WHERE j.id = ANY (q.recent_jobs))
     LIMIT %(limit)s)
)
ORDER BY s.id
