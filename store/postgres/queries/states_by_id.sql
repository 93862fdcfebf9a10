-- Which of these jobs are terminal; what waiters re-read now and then.
SELECT id, state, attempt FROM tenure.history WHERE id = ANY (%(ids)s)
