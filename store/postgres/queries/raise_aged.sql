-- Raise ready jobs that have been due for longer than the ageing of their namespace to the highest priority: a bounded
-- number of each lane, the oldest of each priority first. Reads the lanes of such namespaces, a probe for each priority in
-- them, and what it raises. No more than so many of a lane stand raised at a time: a backlog is not written anew as a whole.
WITH RECURSIVE ageing AS MATERIALIZED (
    SELECT l.id AS lane, now() - make_interval(secs => n.ageing_s) AS before,
           %(per_lane)s - (SELECT count(*) FROM (
               SELECT FROM tenure.job j
               WHERE j.lane = l.id AND j.asked_priority IS NOT NULL AND j.due AND j.state IN ('ready', 'restarting')
               LIMIT %(per_lane)s) raised) AS room
    FROM tenure.namespace n JOIN tenure.lane l ON l.namespace = n.name
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
    ORDER BY j.id FOR UPDATE SKIP LOCKED
)
UPDATE tenure.job j SET asked_priority = coalesce(j.asked_priority, j.priority), priority = %(highest)s
WHERE j.id = ANY (ARRAY(SELECT id FROM locked)) RETURNING j.lane
