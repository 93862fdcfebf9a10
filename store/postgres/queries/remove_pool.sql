-- Forget a route prefix's pools and their pauses, unless jobs below it have not ended. Scans: for operators only.
WITH below AS (
    SELECT count(*) AS jobs FROM tenure.job WHERE route = %(pool)s OR starts_with(route, %(pool)s || '/')
), forgotten AS (
    DELETE FROM tenure.pool p USING below b
    WHERE b.jobs = 0 AND (p.path = %(pool)s OR starts_with(p.path, %(pool)s || '/'))
), resumed AS (
    DELETE FROM tenure.pause p USING below b
    WHERE b.jobs = 0 AND p.subject = 'pool' AND (p.name = %(pool)s OR starts_with(p.name, %(pool)s || '/'))
)
SELECT jobs AS left FROM below
