-- Until when jobs that have ended are counted; null: nothing is yet.
SELECT until_at FROM tenure.history_counted
