-- For each reader the batches that come after a line of an attempt, as far as the bytes reach. The one that the line lies in
-- is found from its beginning, so that a long log is not read from its own.
SELECT w.id, w.attempt, w.after_seq, l.first_seq, l.last_seq, l.lines
FROM unnest(%(ids)s::uuid[], %(attempts)s::int[], %(afters)s::bigint[]) AS w (id, attempt, after_seq)
CROSS JOIN LATERAL (
    SELECT b.first_seq, b.last_seq, b.lines,
           sum(octet_length(b.lines)) OVER (ORDER BY b.first_seq) - octet_length(b.lines) AS before
    FROM (
        SELECT first_seq, last_seq, lines FROM tenure.log
        WHERE job_id = w.id AND attempt = w.attempt AND last_seq > w.after_seq
          AND first_seq >= coalesce((SELECT s.first_seq FROM tenure.log s
                                     WHERE s.job_id = w.id AND s.attempt = w.attempt AND s.first_seq <= w.after_seq
                                     ORDER BY s.first_seq DESC LIMIT 1), 0)
        ORDER BY first_seq LIMIT %(limit)s) b
) l
WHERE l.before < %(bytes)s
ORDER BY w.id, w.attempt, w.after_seq, l.first_seq
