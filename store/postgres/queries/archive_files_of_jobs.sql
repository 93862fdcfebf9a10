-- Files in which some of these jobs may be, by when they were made and by their marks.
SELECT DISTINCT f.id, f.key
FROM unnest(%(ids)s::uuid[], %(made_ms)s::bigint[], %(marks)s::integer[]) AS j (id, made_ms, mark)
JOIN tenure.archive_file f ON f.state = 'done' AND f.made @> j.made_ms AND f.first_id <= j.id AND f.last_id >= j.id
                          AND j.mark = ANY (f.marks)
