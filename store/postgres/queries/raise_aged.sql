-- Raise ready jobs that have been due for longer than the ageing of their namespace to the highest priority: a bounded
-- number of each lane, the oldest of each priority first. Reads a probe for each lane that has a ready job (as the
-- dispatcher does), one for each priority in those that age, and what it raises; nothing where no namespace asks. No
-- more than so many of a lane stand raised at a time: a backlog is not written anew as a whole.
WITH RECURSIVE head (lane) AS (
    (SELECT lane FROM tenure.job
     WHERE due AND state IN ('ready', 'restarting') AND EXISTS (SELECT FROM tenure.namespace WHERE ageing_s IS NOT NULL)
     ORDER BY lane LIMIT 1)
    UNION ALL
    SELECT (SELECT j.lane FROM tenure.job j
            WHERE j.due AND j.state IN ('ready', 'restarting') AND j.lane > h.lane ORDER BY j.lane LIMIT 1)
    FROM head h WHERE h.lane IS NOT NULL
), ageing AS MATERIALIZED (
    SELECT l.id AS lane, now() - make_interval(secs => n.ageing_s) AS before,
           %(per_lane)s - (SELECT count(*) FROM (
               SELECT FROM tenure.job j
               WHERE j.lane = l.id AND j.asked_priority IS NOT NULL AND j.due AND j.state IN ('ready', 'restarting')
               LIMIT %(per_lane)s) raised) AS room
    FROM head h JOIN tenure.lane l ON l.id = h.lane JOIN tenure.namespace n ON n.name = l.namespace
    WHERE n.ageing_s IS NOT NULL
), level (lane, before, room, priority) AS (
    SELECT a.lane, a.before, a.room,
           (SELECT j.priority FROM tenure.job j
            WHERE j.lane = a.lane AND j.due AND j.state IN ('ready', 'restarting') AND j.priority < %(highest)s
            ORDER BY j.priority DESC LIMIT 1)
    FROM ageing a WHERE a.room > 0
    UNION ALL
    SELECT v.lane, v.before, v.room,
           (SELECT j.priority FROM tenure.job j
            WHERE j.lane = v.lane AND j.due AND j.state IN ('ready', 'restarting') AND j.priority < v.priority
            ORDER BY j.priority DESC LIMIT 1)
    FROM level v WHERE v.priority IS NOT NULL
), picked AS (
    SELECT r.id FROM level v
    CROSS JOIN LATERAL (
        SELECT j.id, j.activate_at FROM tenure.job j
        WHERE j.lane = v.lane AND j.due AND j.state IN ('ready', 'restarting') AND j.priority = v.priority
          AND j.activate_at < v.before
        ORDER BY j.activate_at, j.id LIMIT v.room
    ) r
    WHERE v.priority IS NOT NULL
    ORDER BY r.activate_at, r.id LIMIT %(limit)s
), locked AS (
    SELECT j.id FROM tenure.job j
    WHERE j.id = ANY (ARRAY(SELECT id FROM picked)) AND j.due AND j.state IN ('ready', 'restarting')
      AND j.priority < %(highest)s
    ORDER BY j.id FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE tenure.job j SET asked_priority = coalesce(j.asked_priority, j.priority), priority = %(highest)s
WHERE j.id = ANY (ARRAY(SELECT id FROM locked)) RETURNING j.lane
