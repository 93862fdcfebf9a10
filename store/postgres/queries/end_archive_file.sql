-- A planned file is whole, and this transaction removes its jobs; refused where the plan was dropped.
WITH ended AS (
    UPDATE tenure.archive_file
    SET state = 'done', ids = NULL, size_bytes = %(size_bytes)s, sha256 = %(sha256)s,
        schema_version = %(schema_version)s, marks = %(marks)s::integer[], archived_at = now()
    WHERE id = %(id)s AND state = 'planned' RETURNING id
)
SELECT tenure.assert_all(count(*), 1) FROM ended
