-- Remove jobs with all that hangs on them, if they have expired and nothing keeps them; where so many are wanted, all or none.
WITH removed AS MATERIALIZED (
    SELECT tenure.remove_history(%(ids)s::uuid[], %(from_at)s::timestamptz, %(until_at)s::timestamptz,
                                 %(made_at)s::timestamptz, %(leader)s::text, %(has_objects)s::boolean,
                                 %(archive)s::boolean, %(archive_file)s::text) AS gone
)
SELECT gone, tenure.assert_all(gone, %(wanted)s::bigint) FROM removed
