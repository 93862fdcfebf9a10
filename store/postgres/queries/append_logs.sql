-- Batches of log lines, each under its attempt's fence, at most one of an attempt; what was written before changes nothing.
-- A batch beyond the bound is left out, and a line that says so stands for it and for all that follow. Returns for each what
-- was there before and whether it was written now. No row of a job is locked: an append never delays an end.
WITH sent AS MATERIALIZED (
    SELECT s.*, j.namespace, j.attempt
    FROM unnest(%(ids)s::uuid[], %(fences)s::bigint[], %(firsts)s::bigint[], %(lasts)s::bigint[], %(counts)s::bigint[],
                %(sizes)s::bigint[], %(lines)s::text[], %(notes)s::text[])
             AS s (id, fence, first_seq, last_seq, line_count, size, lines, note)
    LEFT JOIN LATERAL (
        SELECT f.namespace, f.attempt FROM tenure.job f
        WHERE f.id = s.id AND f.fence = s.fence AND f.state = 'executing' LIMIT 1) j ON true
), counted AS (
    INSERT INTO tenure.log_head AS h (job_id, attempt, fence, namespace, first_seq, last_seq, lines, bytes)
    SELECT id, attempt, fence, namespace, first_seq, last_seq, line_count, size FROM sent
    WHERE attempt IS NOT NULL ORDER BY id
    ON CONFLICT (job_id, attempt) DO UPDATE
    SET first_seq = excluded.first_seq,
        last_seq = CASE WHEN h.bytes + excluded.bytes > %(most)s THEN excluded.first_seq ELSE excluded.last_seq END,
        is_full = h.bytes + excluded.bytes > %(most)s,
        lines = h.lines + CASE WHEN h.bytes + excluded.bytes > %(most)s THEN 1 ELSE excluded.lines END,
        bytes = h.bytes + CASE WHEN h.bytes + excluded.bytes > %(most)s THEN 0 ELSE excluded.bytes END,
        written_at = now()
    WHERE h.last_seq < excluded.first_seq AND NOT h.is_full AND h.moved_at IS NULL AND h.fence = excluded.fence
    RETURNING job_id, attempt, is_full
), written AS (
    INSERT INTO tenure.log (job_id, attempt, first_seq, last_seq, lines)
    SELECT c.job_id, c.attempt, s.first_seq, CASE WHEN c.is_full THEN s.first_seq ELSE s.last_seq END,
           CASE WHEN c.is_full THEN s.note ELSE s.lines END
    FROM counted c JOIN sent s ON s.id = c.job_id AND s.attempt = c.attempt
)
SELECT s.id, s.fence, s.attempt IS NOT NULL AS is_executing, c.job_id IS NOT NULL AS is_written,
       coalesce(c.is_full, h.is_full, false) AS is_full, coalesce(h.last_seq, 0) AS last_seq
FROM sent s
LEFT JOIN counted c ON c.job_id = s.id AND c.attempt = s.attempt
LEFT JOIN LATERAL (
    SELECT t.is_full, t.last_seq FROM tenure.log_head t WHERE t.job_id = s.id AND t.fence = s.fence LIMIT 1) h ON true
