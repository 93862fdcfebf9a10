-- The key that all coordinators sign with, and the one before it while that is taken; the new one signs once all know it.
SELECT key, CASE WHEN previous_until > now() THEN previous END AS previous, signs_at <= now() AS signs
FROM tenure.signing_key
