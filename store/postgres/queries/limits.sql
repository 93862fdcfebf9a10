-- The definitions of limits, by name.
SELECT name, concurrent, rate, interval_s, burst FROM tenure.job_limit ORDER BY name
