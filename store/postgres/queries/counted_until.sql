-- Until when jobs that have ended are counted, where what is not counted begins, and until when they can be now: by then
-- every transaction that ends a job has committed.
SELECT c.until_at, now() - make_interval(secs => %(lag_s)s) AS can_be,
       coalesce(c.until_at,
           (SELECT min(h.finished_at) FROM tenure.history h
            WHERE h.finished_at < (SELECT min(w.from_at) FROM tenure.week w WHERE w.parent = 'history')),
           (SELECT min(w.from_at) FROM tenure.week w WHERE w.parent = 'history'), now()) AS from_at
FROM tenure.history_counted c
