-- Until when jobs that have ended are counted, null: nothing is; and until when they can be now: by then every transaction
-- that ends a job has committed.
SELECT until_at, now() - make_interval(secs => %(lag_s)s) AS can_be FROM tenure.history_counted
