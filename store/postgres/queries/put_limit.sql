-- Define a limit, or change it. The bucket of a rate keeps its tokens: a change is no refill.
INSERT INTO tenure.job_limit (name, concurrent, rate, interval_s, burst)
VALUES (%(name)s, %(concurrent)s, %(rate)s, %(interval_s)s, %(burst)s)
ON CONFLICT (name) DO UPDATE SET concurrent = excluded.concurrent, rate = excluded.rate,
    interval_s = excluded.interval_s, burst = excluded.burst, updated_at = now()
RETURNING name, concurrent, rate, interval_s, burst
