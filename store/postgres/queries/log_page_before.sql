-- The batches of an attempt that begin before a line, the latest first, as far as the bytes reach.
SELECT first_seq, lines FROM (
    SELECT b.first_seq, b.lines,
           sum(octet_length(b.lines)) OVER (ORDER BY b.first_seq DESC) - octet_length(b.lines) AS behind
    FROM (
        SELECT first_seq, lines FROM tenure.log
        WHERE job_id = %(id)s AND attempt = %(attempt)s AND first_seq < %(before)s
        ORDER BY first_seq DESC LIMIT %(limit)s) b
) l
WHERE behind < %(bytes)s
ORDER BY first_seq DESC
