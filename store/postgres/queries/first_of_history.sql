-- The first job of a span of history after a key; null: there is none.
SELECT (SELECT id FROM tenure.history
        WHERE finished_at >= %(from_at)s::timestamptz AND finished_at < %(until_at)s::timestamptz
          AND id > %(after)s AND id < %(before)s
        ORDER BY id LIMIT 1) AS id
