-- Let a file of the archive count that was made of one that the database did not know, whose object goes; refused where that
-- one is known by now. Without jobs there is none that counts.
WITH known AS (
    SELECT key FROM tenure.archive_file WHERE key IN (%(old_key)s, %(key)s)
    UNION SELECT archive_key FROM tenure.object_to_delete WHERE archive_key IN (%(old_key)s, %(key)s)
    UNION SELECT key FROM tenure.archive_file  -- somebody else may have adopted the same jobs meanwhile
    WHERE state = 'done' AND made && int8range(%(made_from)s::bigint, %(made_until)s::bigint, '[]')
      AND archived_at >= %(looked_at)s::timestamptz
), file AS (
    INSERT INTO tenure.archive_file (id, namespace, key, state, jobs, first_id, last_id, made, finished_from, finished_until,
                                     size_bytes, sha256, schema_version, marks, archived_at, policy_namespace, policy_kind,
                                     policy_state, storage_class)
    SELECT %(id)s, %(namespace)s, %(key)s, 'done', %(jobs)s, %(first_id)s::uuid, %(last_id)s::uuid,
           int8range(%(made_from)s::bigint, %(made_until)s::bigint, '[]'), %(finished_from)s::timestamptz,
           %(finished_until)s::timestamptz, %(size_bytes)s::bigint, %(sha256)s::bytea, %(schema_version)s::integer,
           %(marks)s::integer[], now(), %(policy_namespace)s, %(policy_kind)s, %(policy_state)s, %(storage_class)s
    WHERE %(jobs)s::integer > 0 AND NOT EXISTS (SELECT FROM known)
), old AS (
    INSERT INTO tenure.object_to_delete (id, namespace, archive_key)
    SELECT %(old_id)s::uuid, %(namespace)s, %(old_key)s WHERE NOT EXISTS (SELECT FROM known)
    RETURNING id
)
SELECT tenure.assert_all(count(*), 1) FROM old
