-- Remove jobs with all that hangs on them, if they have expired and nothing keeps them.
SELECT tenure.remove_history(%(ids)s::uuid[], %(from_at)s::timestamptz, %(until_at)s::timestamptz, %(made_at)s::timestamptz,
                             %(leader)s::text, %(archive)s::boolean, %(archive_file)s::text) AS gone
