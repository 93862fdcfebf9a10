-- For each followed job how far its logs have come, and what it is doing; a job that is not there has ended.
SELECT w.id, j.attempt AS job_attempt, coalesce(j.state = 'executing', false) AS is_executing,
       coalesce(h.attempt, 0) AS attempt, coalesce(h.last_seq, 0) AS last_seq
FROM unnest(%(ids)s::uuid[]) AS w (id)
LEFT JOIN LATERAL (SELECT f.attempt, f.state FROM tenure.job f WHERE f.id = w.id LIMIT 1) j ON true
LEFT JOIN LATERAL (
    SELECT t.attempt, t.last_seq FROM tenure.log_head t WHERE t.job_id = w.id ORDER BY t.attempt DESC LIMIT 1) h ON true
