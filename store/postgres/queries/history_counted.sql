-- Until when jobs that have ended are counted.
SELECT CASE WHEN until_at > '-infinity' THEN until_at END AS until_at FROM tenure.history_counted
