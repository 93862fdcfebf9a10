-- Since when the key is used, until when the one before it is taken, and how many attempts that began before still run.
SELECT signs_at, CASE WHEN previous_until > now() THEN previous_until END AS previous_until,
       (SELECT count(*) FROM tenure.job WHERE state = 'executing' AND started_at < signs_at) AS attempts_before
FROM tenure.signing_key
