-- A commit that changes nothing: one message in the log, in a transaction of its own; the answer comes when it is on disk.
SELECT pg_logical_emit_message(true, 'tenure-doctor', '')
