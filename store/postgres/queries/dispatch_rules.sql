-- All that operators set for dispatch.
SELECT coalesce((SELECT json_agg(l) FROM (SELECT name, concurrent, rate, interval_s, burst FROM tenure.job_limit) l),
                '[]') AS limits,
       coalesce((SELECT json_agg(p) FROM (SELECT subject, name, reason FROM tenure.pause) p), '[]') AS pauses,
       coalesce((SELECT json_object_agg(name, weight) FROM tenure.namespace), '{}') AS weights
