-- Forget buckets that must be full again: burst times interval is at most seven days of the rate (model/limits.py).
DELETE FROM tenure.bucket WHERE taken_at < now() - interval '8 days'
