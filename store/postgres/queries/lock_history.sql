-- Hold jobs that are to be removed in place, at once or not at all: whoever retries one of them, or has just made a job that
-- depends on one, goes first, and is seen the next time.
SELECT count(*) FROM (
    SELECT id FROM tenure.history
    WHERE id = ANY (%(ids)s::uuid[])
      AND finished_at >= %(from_at)s::timestamptz AND finished_at < %(until_at)s::timestamptz
    ORDER BY id FOR UPDATE NOWAIT
) AS held
